"""What the fake engine writes, and its tokens."""

import zlib

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import (
    Chat,
    Chunk,
    Generate,
    Prompt,
    PromptInfo,
    Stop,
    StopReason,
    Token,
)

SENTENCE = "the quick brown fox jumps over the lazy dog. "
EOS_ID = 0


def render(prompt: Prompt) -> str:
    """Return a prompt as text.

    Raises:
        PlatformError: INVALID_ARGUMENT for ids that are no text.
    """
    if isinstance(prompt, Chat):
        return "".join(f"{turn.role}: {turn.content}\n" for turn in prompt.turns)
    if isinstance(prompt, str):
        return prompt
    try:
        text = "".join(map(chr, prompt))
        text.encode()  # half a surrogate pair is no text
    except (ValueError, OverflowError):
        raise PlatformError(
            Code.INVALID_ARGUMENT, "A token id is not in this model's vocabulary.", param="prompt"
        ) from None
    return text


class Writer:
    """The state of one continuation."""

    def __init__(self, request: Generate, prompt: str, index: int, room: int) -> None:
        self._request = request
        self._prompt = prompt
        self._index = index
        self._start = zlib.crc32(prompt.encode()) + (request.sampling.seed or 0) + index
        asked = request.stopping.max_new_tokens
        self.limit = max(1, room if asked is None else min(asked, room))
        self._reason = (
            StopReason.TOKEN_LIMIT if asked is None or asked > room else StopReason.MAX_TOKENS
        )
        self._text = ""
        self._sent = 0
        self._hold = max(map(len, request.stopping.stop_sequences), default=1) - 1

    def next(self, elapsed_s: float) -> Chunk:
        """Write one character and say whether it was the last."""
        details = self._request.details
        char = SENTENCE[(self._start + len(self._text)) % len(SENTENCE)]
        self._text += char
        count = len(self._text)
        stop = self._stop(count, elapsed_s)
        prompt = None
        if count == 1 and self._index == 0:
            prompt = PromptInfo(
                token_count=len(self._prompt),
                text=self._prompt if details.input_text else None,
                tokens=_prompt_tokens(self._prompt, self._request) if details.input_tokens else (),
            )
        return Chunk(
            index=self._index,
            text=self._release(stop),
            tokens=_tokens(char, self._request) if details.generated_tokens else (),
            generated_tokens=count,
            prompt=prompt,
            seed=self._request.sampling.seed if count == 1 else None,
            stop=stop,
        )

    def _release(self, stop: Stop | None) -> str:
        """Return the text that can go out: what may yet become a stop sequence is held back."""
        rules = self._request.stopping
        end = len(self._text)
        if not rules.include_stop_sequence:
            if stop is None:
                end -= self._hold
            elif stop.sequence:
                end -= len(stop.sequence)
        text = self._text[self._sent : max(end, self._sent)]
        self._sent += len(text)
        return text

    def _stop(self, count: int, elapsed_s: float) -> Stop | None:
        rules = self._request.stopping
        if count >= rules.min_new_tokens:
            for sequence in rules.stop_sequences:
                if self._text.endswith(sequence):
                    return Stop(reason=StopReason.STOP_SEQUENCE, sequence=sequence)
            if self._text.endswith(". ") and not rules.ignore_eos:
                return Stop(reason=StopReason.EOS, token_id=EOS_ID)
        if rules.time_limit_s is not None and elapsed_s >= rules.time_limit_s:
            return Stop(reason=StopReason.TIME_LIMIT)
        return Stop(reason=self._reason) if count >= self.limit else None


def _prompt_tokens(text: str, request: Generate) -> tuple[Token, ...]:
    if request.details.input_token_details:
        return _tokens(text, request)
    return tuple(Token(id=ord(char), text=char) for char in text)


def _tokens(text: str, request: Generate) -> tuple[Token, ...]:
    """Give every character probability 1/2, its successors 1/4, 1/8 and so on."""
    details = request.details

    def token(char: str, rank: int, top: tuple[Token, ...] = ()) -> Token:
        return Token(
            id=ord(char),
            text=char,
            logprob=-0.6931471805599453 * rank if details.logprobs else None,
            rank=rank if details.ranks else None,
            top=top,
        )

    return tuple(
        token(c, 1, tuple(token(_after(c, i), i + 1) for i in range(details.top_n_tokens)))
        for c in text
    )


def _after(char: str, i: int) -> str:
    """Return the i-th successor; counting starts over before the surrogates, which are no text."""
    return char if i == 0 else chr((ord(char) + i) % 0xD800)
