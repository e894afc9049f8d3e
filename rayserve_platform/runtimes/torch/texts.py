"""Texts to tokens and back, with the model's own tokenizer and chat template."""

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import Chat, Prompt, Tokens
from rayserve_platform.core.prompts import byte_size, checked, no_chat_template, truncated


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
            return checked(prompt, self._vocabulary)
        if isinstance(prompt, Chat):
            prompt, special = self._rendered(prompt), False
        byte_size(prompt)  # which half of a surrogate pair has not
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
        """Keep the last tokens, and a beginning-of-text token that was added."""
        return truncated(ids, count, keeps_first=special and self._adds_bos)

    def decode(self, ids: Sequence[int], *, skip_special: bool) -> str:
        """Return the text of tokens."""
        text: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=skip_special, clean_up_tokenization_spaces=False
        )
        return text

    def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text of a caller's tokens, special ones included."""
        return self.decode(checked(ids, self._vocabulary), skip_special=False)

    def token(self, token_id: int) -> str:
        """Return a token's vocabulary text (`ĠParis`); empty for an id that has none."""
        piece: str | None = self._tokenizer.convert_ids_to_tokens(token_id)
        return piece or ""

    def _rendered(self, chat: Chat) -> str:
        if not (chat.template or self.has_chat_template):
            raise no_chat_template()
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
