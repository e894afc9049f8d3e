"""Texts to tokens, with Caikit's rules for what is too long.

The rules are those of caikit-nlp 0.5 (`modules/text_embedding/embedding.py`, `_tokenize_plus`, and
`crossencoder.py`, `get_tokenized`, `_truncation_needed`). Everything here blocks, and runs in a
thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Encoding

from rayserve_platform.core.errors import Code, InputTooLong, PlatformError
from rayserve_platform.core.messages import Tokens
from rayserve_platform.runtimes.embedding.batch import Row
from rayserve_platform.runtimes.embedding.tokenizer import load_tokenizer, pad_id

LEAST_PAIR_TOKENS = 5
"""The least that Caikit cuts a pair to: three special tokens and one of each text."""

CAIKIT_BATCH = 32
"""Caikit looks at so many texts at a time, and tells of those that are too long of the first time
that there are any. Without such a bound the answer to a long list is too long for gRPC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """A text of pairs: letters, tokens, and those of its tokens that the model could take."""

    length: int
    count: int
    encoding: Any


class Texts:
    """The tokenizer of one model.

    Args:
        directory: where its files are.
        max_tokens: longest input of the model, special tokens included.
        segments: whether pairs tell their two texts apart.
    """

    def __init__(self, directory: Path, *, max_tokens: int, segments: bool = False) -> None:
        self._tokenizer: Any = load_tokenizer(directory)
        self._max_tokens = max_tokens
        self._segments = segments
        self.pad_id = pad_id(directory, self._tokenizer)

    def rows(
        self, inputs: Sequence[str | Sequence[int]], field: str, truncate: int | None
    ) -> list[Row]:
        """Return the tokens of each text, or check those that are given.

        Raises:
            InputTooLong: unless `truncate` says how many tokens to keep.
            PlatformError: INVALID_ARGUMENT for what is no text, or no token of the model.
        """
        texts = [item.strip() if isinstance(item, str) else "" for item in inputs]
        found = self._encode(texts, field, offsets=truncate is not None)
        limit = min(truncate or self._max_tokens, self._max_tokens)
        rows: list[Sequence[int]] = []
        for index, (item, encoding) in enumerate(zip(inputs, found, strict=True)):
            if not isinstance(item, str):
                rows.append(self._given(item, f"'{field}' at index {index}", truncate))
            elif truncate is not None and len(encoding.ids) > limit:
                rows.append(self._cut(texts[index], encoding, limit))
            else:
                rows.append(encoding.ids)
        self._fit(rows, inputs, field)
        return [Row(ids=ids) for ids in rows]

    def pairs(
        self,
        queries: Sequence[str],
        documents: Sequence[str],
        truncate: int | None,
        *,
        lenient: bool = False,
    ) -> list[Row]:
        """Return the tokens of each query with each document, query by query; raises as `rows`.

        A pair that is too long is told by its document. With `lenient` it is one that
        `_visibly_cut` finds, and others are cut.
        """
        first = self._sides(queries, "queries")
        second = self._sides(documents, "documents")
        limit = min(max(truncate or self._max_tokens, LEAST_PAIR_TOKENS), self._max_tokens)
        rows: list[Row] = []
        for query in first:
            found = [self._pair(query, document, limit) for document in second]
            if truncate is None:
                self._refuse(query, second, found, lenient=lenient)
            rows += [Row(ids=e.ids, segments=e.type_ids if self._segments else ()) for e in found]
        return rows

    def tokens(self, text: str, *, special: bool, truncate: int | None) -> Tokens:
        """Return the tokens of a text as it stands, the first `truncate` of them."""
        _check([text], "prompt")
        encoding = self._tokenizer.encode(text, add_special_tokens=special)
        if truncate is not None:
            specials = self._tokenizer.num_special_tokens_to_add(is_pair=False) if special else 0
            encoding = self._prefix(text, encoding, max(truncate, specials), special=special)
        return Tokens(
            ids=tuple(encoding.ids), texts=tuple(encoding.tokens), offsets=tuple(encoding.offsets)
        )

    def text(self, ids: Sequence[int]) -> str:
        """Return the text that tokens stand for, without special tokens."""
        self._given(ids, "'tokens'", len(ids))
        text: str = self._tokenizer.decode(list(ids))
        return text

    def _encode(self, texts: Sequence[str], field: str, *, offsets: bool) -> list[Any]:
        """Tokenize without offsets where nothing can be cut, which is faster."""
        _check(texts, field)
        encode = self._tokenizer.encode_batch if offsets else self._tokenizer.encode_batch_fast
        found: list[Any] = encode(list(texts))
        return found

    def _cut(self, text: str, encoding: Any, limit: int) -> Sequence[int]:
        """Cut the text behind its last token that fits, and tokenize what is left.

        So does Caikit: the last place is kept for an end token, and what is cut off may change the
        tokens in front of it.
        """
        offsets, kept = encoding.offsets, encoding.offsets[: max(1, limit - 1)]
        start = next((begin for begin, end in offsets if (begin, end) != (0, 0)), 0)
        rest = text[start : max(end for _, end in kept)]
        cut = self._prefix(rest, self._tokenizer.encode(rest), self._max_tokens, special=True)
        ids: list[int] = cut.ids
        return ids

    def _given(self, ids: Sequence[int], what: str, truncate: int | None) -> Sequence[int]:
        size = self._tokenizer.get_vocab_size()
        if not ids:
            raise PlatformError(Code.INVALID_ARGUMENT, f"{what}: no tokens.", param="input")
        if min(ids) < 0 or max(ids) >= size:
            raise PlatformError(
                Code.INVALID_ARGUMENT,
                f"{what}: token ids must be from 0 to {size - 1}.",
                param="input",
            )
        return ids[:truncate]

    def _fit(
        self, rows: Sequence[Sequence[int]], inputs: Sequence[str | Sequence[int]], field: str
    ) -> None:
        long = _too_long(rows, inputs, self._max_tokens)
        if long:
            raise InputTooLong(limit=self._max_tokens, field=field, indexes=tuple(long))

    def _sides(self, texts: Sequence[str], field: str) -> list[_Side]:
        """Tokenize each text once, however many pairs it is in."""
        stripped = [text.strip() for text in texts]
        _check(stripped, field)
        found = self._tokenizer.encode_batch(stripped, add_special_tokens=False)
        sides: list[_Side] = []
        for text, encoding in zip(stripped, found, strict=True):
            count = len(encoding)
            _truncate(encoding, self._max_tokens)
            sides.append(_Side(length=len(text), count=count, encoding=encoding))
        return sides

    def _pair(self, query: _Side, document: _Side, limit: int) -> Any:
        """Take tokens off the longer text of a pair until it fits, as transformers does."""
        room = max(0, limit - self._tokenizer.num_special_tokens_to_add(is_pair=True))
        counts = [query.count, document.count]
        encodings = [query.encoding, document.encoding]
        if sum(counts) > room:
            longer = 0 if counts[0] > counts[1] else 1
            other = min(counts[1 - longer], room // 2)
            for place, kept in ((1 - longer, other), (longer, room - other)):
                if counts[place] > kept:
                    encodings[place] = Encoding.merge([encodings[place]], growing_offsets=False)
                    _truncate(encodings[place], kept)
        return self._tokenizer.post_process(*encodings)

    def _refuse(
        self, query: _Side, documents: Sequence[_Side], found: Sequence[Any], *, lenient: bool
    ) -> None:
        """Refuse documents that do not fit beside a query."""
        room = self._max_tokens - self._tokenizer.num_special_tokens_to_add(is_pair=True)
        if lenient:
            long = [
                len(e) >= self._max_tokens and _visibly_cut(e, (query.length, document.length))
                for document, e in zip(documents, found, strict=True)
            ]
        else:
            long = [query.count + document.count > room for document in documents]
        if indexes := _first_batch(range(len(long)), long):
            raise InputTooLong(limit=self._max_tokens, field="documents", indexes=tuple(indexes))

    def _prefix(self, text: str, encoding: Any, limit: int, *, special: bool) -> Any:
        if len(encoding.ids) <= limit:
            return encoding
        bare = self._tokenizer.encode(text, add_special_tokens=False)
        specials = self._tokenizer.num_special_tokens_to_add(is_pair=False) if special else 0
        bare.truncate(limit - specials)
        return self._tokenizer.post_process(bare) if special else bare


def _truncate(encoding: Any, count: int) -> None:
    """Cut an encoding, which keeps what is cut off in pieces of that length, in two steps.

    The second forgets what the first has kept; thousands of pieces would be in each pair.
    """
    encoding.truncate(count + 1)
    encoding.truncate(count)


def _visibly_cut(encoding: Any, lengths: tuple[int, int]) -> bool:
    """Say whether Caikit sees that a pair as long as the model takes has been cut.

    It looks only at the text whose tokens reach furthest in letters, and takes it for the first one
    where the tokenizer does not tell the two apart, as RoBERTa's. So a pair that fits is refused as
    well, if the end of that text has no token.

    Args:
        encoding: the pair.
        lengths: of its texts, in letters.
    """
    reached, text = 0, 0
    for (_, end), segment in zip(encoding.offsets, encoding.type_ids, strict=True):
        if end > reached:
            reached, text = end, segment
    return reached < lengths[text]


def _check(texts: Sequence[str], field: str) -> None:
    """Refuse half a surrogate pair, which JSON can say and no tokenizer can read."""
    for index, text in enumerate(texts):
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise PlatformError(
                    Code.INVALID_ARGUMENT,
                    f"'{field}' at index {index}: not valid Unicode text.",
                    param=field,
                ) from None


def _too_long(
    rows: Sequence[Sequence[int]], inputs: Sequence[str | Sequence[int]], limit: int
) -> list[int]:
    """Return the places of rows that are too long, the longest text first, as Caikit sorts them."""
    order = sorted(range(len(rows)), key=lambda index: -len(inputs[index]))
    return _first_batch(order, [len(ids) > limit for ids in rows])


def _first_batch(order: Sequence[int], too_long: Sequence[bool]) -> list[int]:
    """Return the places that are too long of the first batch that has any."""
    if not any(too_long):
        return []
    batches = (order[start : start + CAIKIT_BATCH] for start in range(0, len(order), CAIKIT_BATCH))
    found = ([place for place in batch if too_long[place]] for batch in batches)
    return next(filter(None, found))
