"""Texts to tokens and back, with the model's own tokenizer and chat template."""

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import Chat, Prompt, Tokens


class Texts:
    """Wraps a tokenizer. Every method is for a worker thread.

    Args:
        tokenizer: transformers'.
        chat_template: the operator's, for a model without one.
        vocabulary: how many token ids the model knows.
    """

    def __init__(self, tokenizer: Any, *, chat_template: str | None, vocabulary: int) -> None:
        self._tokenizer = tokenizer
        self._template = chat_template
        self._vocabulary = vocabulary
        # The first call takes a truncation out of the tokenizer that its file may have set; from
        # then on calls change nothing and threads may share it.
        alone = tokenizer("")["input_ids"]
        self._adds_bos = tokenizer.bos_token_id is not None and alone[:1] == [
            tokenizer.bos_token_id
        ]

    @property
    def has_chat_template(self) -> bool:
        """Whether conversations can be rendered."""
        return bool(self._template or getattr(self._tokenizer, "chat_template", None))

    def encode(self, prompt: Prompt, *, special: bool) -> list[int]:
        """Return a prompt's token ids; a chat template writes the special tokens itself."""
        if isinstance(prompt, tuple):
            return self._checked(prompt)
        if isinstance(prompt, Chat):
            prompt, special = self._rendered(prompt), False
        _refuse_half_characters(prompt)
        ids: list[int] = self._tokenizer(prompt, add_special_tokens=special)["input_ids"]
        return ids

    def tokens(self, prompt: str | Chat, *, special: bool) -> Tokens:
        """Return a prompt's tokens, with offsets where the tokenizer knows them."""
        ids = self.encode(prompt, special=special)
        offsets: tuple[tuple[int, int], ...] = ()
        if isinstance(prompt, str) and self._tokenizer.is_fast:
            found = self._tokenizer(prompt, add_special_tokens=special, return_offsets_mapping=True)
            offsets = tuple((start, end) for start, end in found["offset_mapping"])
        return Tokens(ids=tuple(ids), texts=tuple(map(self.token, ids)), offsets=offsets)

    def truncated(self, ids: list[int], count: int, *, special: bool) -> list[int]:
        """Keep the last tokens, and in front of them the beginning-of-text token that was added."""
        if len(ids) <= count:
            return ids
        if special and self._adds_bos and count > 0:
            return [ids[0], *ids[len(ids) - count + 1 :]]
        return ids[len(ids) - count :]

    def decode(self, ids: Sequence[int], *, skip_special: bool) -> str:
        """Return the text of tokens."""
        text: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=skip_special, clean_up_tokenization_spaces=False
        )
        return text

    def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text of a caller's tokens, special ones included."""
        return self.decode(self._checked(ids), skip_special=False)

    def token(self, token_id: int) -> str:
        """Return a token's vocabulary text (`ĠParis`); empty for an id that has none."""
        piece: str | None = self._tokenizer.convert_ids_to_tokens(token_id)
        return piece or ""

    def _checked(self, ids: Sequence[int]) -> list[int]:
        for token_id in ids:
            if not 0 <= token_id < self._vocabulary:
                raise PlatformError(
                    Code.INVALID_ARGUMENT,
                    f"Token id {token_id} is not in this model's vocabulary of {self._vocabulary}.",
                    param="prompt",
                )
        return list(ids)

    def _rendered(self, chat: Chat) -> str:
        if not (chat.template or self.has_chat_template):
            raise PlatformError(
                Code.INVALID_ARGUMENT,
                "This model has no chat template, so it takes no conversations; send a text.",
                param="messages",
            )
        try:
            text: str = self._tokenizer.apply_chat_template(
                [{"role": turn.role, "content": turn.content} for turn in chat.turns],
                tools=[dict(tool) for tool in chat.tools] or None,
                chat_template=chat.template or self._template,
                add_generation_prompt=chat.add_generation_prompt,
                continue_final_message=chat.continue_final_message,
                tokenize=False,
                **chat.template_kwargs,
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise PlatformError(
                Code.INVALID_ARGUMENT,
                f"The chat template can't render this conversation: {error}",
                param="messages",
            ) from error
        return text


def _refuse_half_characters(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PlatformError(
            Code.INVALID_ARGUMENT,
            "The text holds half of a surrogate pair, which is no character.",
            param="prompt",
        ) from None
