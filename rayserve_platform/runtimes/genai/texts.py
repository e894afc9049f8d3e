"""Texts to tokens and back, with the model's own tokenizer and chat template."""

import functools
from collections.abc import Sequence
from typing import Any

from rayserve_platform.core.errors import Code, PlatformError, PromptTooLong
from rayserve_platform.core.messages import Chat, Prompt, Tokens
from rayserve_platform.core.prompts import byte_size, checked, no_chat_template, truncated

KEPT_TEXTS = 2**16
"""Texts of a few tokens that are kept, since most tokens come again and again."""

MOST_BYTES = 4 * 2**20
"""Of a text: tokenizing takes 40 MB in a second, and what comes of it ten times as much memory."""

WORD = "\u2581".encode()
"""The sign ▁ that marks the beginning of a word in SentencePiece's vocabularies."""


class Texts:
    """Wraps a tokenizer of the library. Threads may share it.

    Args:
        tokenizer: the library's.
        template: the operator's chat template, for a model without one.
        longest: the most tokens that a prompt may have.
    """

    def __init__(self, tokenizer: Any, *, template: str | None, longest: int) -> None:
        self._tokenizer = tokenizer
        self._template = template or tokenizer.chat_template
        self._longest = longest
        vocabulary: dict[bytes, int] = tokenizer.get_vocab()
        self.vocabulary = max(vocabulary.values()) + 1
        self._pieces = _pieces(vocabulary)
        self._bytes = {i: piece.replace(WORD, b" ") for piece, i in vocabulary.items()}
        self._longest_piece = max(map(len, vocabulary))
        self._bos = tokenizer.get_bos_token_id()
        self._adds_bos = self._encoded("", special=True)[:1] == [self._bos]
        self.decode = functools.lru_cache(KEPT_TEXTS)(self._decode)

    @property
    def has_chat_template(self) -> bool:
        """Whether conversations can be rendered."""
        return bool(self._template)

    def encode(self, prompt: Prompt, *, special: bool, cut: bool = False) -> list[int]:
        """Return a prompt's token ids; a chat template writes the special tokens itself.

        Raises:
            PlatformError: INVALID_ARGUMENT for what is no text, or unless it is to be `cut`, for a
                text so long that no model could take it.
        """
        if isinstance(prompt, tuple):
            return self.checked(prompt)
        if isinstance(prompt, Chat):
            prompt, special = self._rendered(prompt), False
        size = byte_size(prompt)
        if not cut and (least := size // self._longest_piece) > self._longest:
            # To tokenize it would take seconds, only to say the same.
            raise PromptTooLong(limit=self._longest, token_count=least)
        if size > MOST_BYTES:
            raise PlatformError(
                Code.INVALID_ARGUMENT,
                f"The text has {size} bytes; at most {MOST_BYTES} can be tokenized.",
                param="prompt",
            )
        return self._encoded(prompt, special=special)

    def tokens(self, prompt: str | Chat, *, special: bool) -> Tokens:
        """Return a prompt's tokens; with offsets where its text is that of its tokens."""
        ids = self.encode(prompt, special=special, cut=True)
        offsets = self._offsets(ids, prompt) if isinstance(prompt, str) else ()
        return Tokens(ids=tuple(ids), texts=tuple(map(self.token, ids)), offsets=offsets)

    def truncated(self, ids: list[int], count: int, *, special: bool) -> list[int]:
        """Keep the last tokens, and a beginning-of-text token that was added."""
        return truncated(ids, count, keeps_first=special and self._adds_bos)

    def text(self, ids: Sequence[int], *, skip_special: bool) -> str:
        """Return the text of many tokens."""
        return self._decode(tuple(ids), skip_special)

    def token(self, token_id: int) -> str:
        """Return a token's vocabulary text (`ĠParis`); empty for an id that has none."""
        return self._pieces.get(token_id, "")

    def checked(self, ids: Sequence[int]) -> list[int]:
        """Return a caller's token ids; raises as `prompts.checked`."""
        return checked(ids, self.vocabulary)

    def _encoded(self, text: str, *, special: bool) -> list[int]:
        found = self._tokenizer.encode([text], add_special_tokens=special)
        ids: list[int] = found.input_ids.data.reshape(-1).tolist()
        return ids

    def _decode(self, ids: tuple[int, ...], skip_special: bool) -> str:  # noqa: FBT001  # a cache key
        if not ids:
            return ""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=skip_special)
        return text

    def _offsets(self, ids: list[int], text: str) -> tuple[tuple[int, int], ...]:
        """Return where tokens begin and end; those of one character share its place."""
        pieces = [self._bytes.get(i, b"") for i in ids]
        if self._adds_bos and ids and ids[0] == self._bos:
            pieces[0] = b""
        written, content = b"".join(pieces), text.encode()
        lead = int(written == b" " + content)  # which SentencePiece puts before a text
        if written[lead:] != content:
            return ()
        places = [place for place, sign in enumerate(text) for _ in sign.encode()]
        found, end = [], -lead
        for piece in pieces:
            begin, end = max(0, end), end + len(piece)
            if end > begin:
                found.append((places[begin], places[end - 1] + 1))
            else:
                place = places[begin] if begin < len(places) else len(text)
                found.append((place, place))
        return tuple(found)

    def _rendered(self, chat: Chat) -> str:
        if not (chat.template or self._template):
            raise no_chat_template()
        turns = [{"role": turn.role, "content": turn.content} for turn in chat.turns]
        for turn in turns:
            byte_size(turn["role"] + turn["content"])
        try:
            text: str = self._tokenizer.apply_chat_template(
                turns,
                add_generation_prompt=chat.add_generation_prompt,
                chat_template=chat.template or self._template,
                tools=[dict(tool) for tool in chat.tools] or None,
                extra_context=dict(chat.template_kwargs) or None,
            )
        except (RuntimeError, TypeError, ValueError) as error:
            raise PlatformError(
                Code.INVALID_ARGUMENT,
                "The chat template can't render this conversation.",
                param="messages",
            ) from error
        return _continued(text, chat) if chat.continue_final_message else text


def _continued(text: str, chat: Chat) -> str:
    """Cut what a template writes behind the last message, which the model is to go on with."""
    last = chat.turns[-1].content.strip() if chat.turns else ""
    place = text.rfind(last)
    if not last or place < 0 or chat.add_generation_prompt:
        raise PlatformError(
            Code.INVALID_ARGUMENT,
            "'continue_final_message' needs a last message with text, and "
            "'add_generation_prompt' to be false.",
            param="continue_final_message",
        )
    return text[: place + len(last)]


def _pieces(vocabulary: dict[bytes, int]) -> dict[int, str]:
    """Return tokens' texts as their tokenizer's files have them.

    The library keeps the bytes that they stand for. A vocabulary of words marks the beginning of
    one by ▁; one without such marks is of bytes, which files write as GPT-2 did, so that each can
    be seen: a space is Ġ.
    """
    if any(piece.startswith(WORD) for piece in vocabulary):
        return {i: piece.decode(errors="replace") for piece, i in vocabulary.items()}
    shown = {byte: chr(byte) for byte in (*range(33, 127), *range(161, 173), *range(174, 256))}
    others = (byte for byte in range(256) if byte not in shown)
    shown |= {byte: chr(256 + place) for place, byte in enumerate(others)}
    return {i: "".join(shown[byte] for byte in piece) for piece, i in vocabulary.items()}
