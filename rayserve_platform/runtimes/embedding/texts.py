"""Texts to tokens, with Caikit's rules for what is too long.

The rules are those of caikit-nlp 0.5 (`modules/text_embedding/embedding.py`, `_tokenize_plus`, and
`crossencoder.py`, `get_tokenized`). Everything here blocks, and runs in a thread.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from rayserve_platform.core.errors import Code, InputTooLong, PlatformError
from rayserve_platform.core.messages import Tokens
from rayserve_platform.formats.weights import read_json
from rayserve_platform.runtimes.embedding.batch import Row

LEAST_PAIR_TOKENS = 5
"""The least that Caikit cuts a pair to: three special tokens and one of each text."""


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
        self, queries: Sequence[str], documents: Sequence[str], truncate: int | None
    ) -> list[Row]:
        """Return the tokens of each query with each document, query by query; raises as `rows`."""
        first = [text.strip() for text in queries]
        second = [text.strip() for text in documents]
        _check(first, "queries")
        _check(second, "documents")
        couples = [(query, document) for query in first for document in second]
        found = self._tokenizer.encode_batch_fast(couples)
        if truncate is None:
            keys = [document for _ in queries for document in documents]
            long = _too_long([e.ids for e in found], keys, self._max_tokens)
            if long:
                places = dict.fromkeys(place % len(documents) for place in long)
                raise InputTooLong(limit=self._max_tokens, field="documents", indexes=(*places,))
        else:
            limit = min(max(truncate, LEAST_PAIR_TOKENS), self._max_tokens)
            found = [
                self._shortened(couple, e, limit) for couple, e in zip(couples, found, strict=True)
            ]
        return [Row(ids=e.ids, segments=e.type_ids if self._segments else ()) for e in found]

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

    def _shortened(self, couple: tuple[str, str], encoding: Any, limit: int) -> Any:
        """Take tokens off the longer text of a pair until it fits, as transformers does."""
        if len(encoding.ids) <= limit:
            return encoding
        specials = self._tokenizer.num_special_tokens_to_add(is_pair=True)
        first, second = (self._tokenizer.encode(t, add_special_tokens=False) for t in couple)
        room = max(0, limit - specials)
        lengths = [len(first.ids), len(second.ids)]
        longer = 0 if lengths[0] > lengths[1] else 1
        other = min(lengths[1 - longer], room // 2)
        kept = [0, 0]
        kept[1 - longer], kept[longer] = other, room - other
        first.truncate(kept[0])
        second.truncate(kept[1])
        return self._tokenizer.post_process(first, second)

    def _prefix(self, text: str, encoding: Any, limit: int, *, special: bool) -> Any:
        if len(encoding.ids) <= limit:
            return encoding
        bare = self._tokenizer.encode(text, add_special_tokens=False)
        specials = self._tokenizer.num_special_tokens_to_add(is_pair=False) if special else 0
        bare.truncate(limit - specials)
        return self._tokenizer.post_process(bare) if special else bare


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
    long = [index for index, ids in enumerate(rows) if len(ids) > limit]
    return sorted(long, key=lambda index: -len(inputs[index]))


def load_tokenizer(directory: Path) -> Any:
    """Load a tokenizer without limits of its own.

    `tokenizer.json` alone is read without transformers, whose import takes seconds. It is corrected
    as transformers corrects it: `do_lower_case` of a BERT tokenizer's config wins.
    """
    path = directory / "tokenizer.json"
    if path.is_file():
        content = read_json(path)
        normalizer = content.get("normalizer")
        config = directory / "tokenizer_config.json"
        if isinstance(normalizer, dict) and normalizer.get("type") == "BertNormalizer":
            given = read_json(config) if config.is_file() else {}
            for ours, theirs in (
                ("lowercase", "do_lower_case"),
                ("strip_accents", "strip_accents"),
                ("handle_chinese_chars", "tokenize_chinese_chars"),
            ):
                normalizer[ours] = given.get(theirs, normalizer.get(ours))
        try:
            tokenizer = Tokenizer.from_str(json.dumps(content))
        except Exception as error:  # tokenizers raises bare exceptions
            message = "tokenizer.json can't be read by the tokenizers library"
            raise PlatformError(Code.INVALID_ARGUMENT, message, param="source") from error
    else:
        tokenizer = _converted(directory)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _converted(directory: Path) -> Any:
    """Let transformers make a tokenizer of a vocabulary."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(directory, local_files_only=True).backend_tokenizer
    except Exception as error:
        message = "the model has no tokenizer.json, and none can be made of its vocabulary"
        raise PlatformError(Code.INVALID_ARGUMENT, message, param="source") from error


def pad_id(directory: Path, tokenizer: Any) -> int:
    """Return the id that fills a batch up; some models tell positions by it."""
    for name, read in (("tokenizer_config.json", "pad_token"), ("config.json", "pad_token_id")):
        path = directory / name
        value = read_json(path).get(read) if path.is_file() else None
        if isinstance(value, dict):
            value = value.get("content")
        if isinstance(value, str):
            value = tokenizer.token_to_id(value)
        if isinstance(value, int):
            return value
    return 0
