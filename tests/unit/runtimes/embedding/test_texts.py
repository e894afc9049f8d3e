"""Tokens as Caikit's tokenizer gives them, held against transformers' own and a recording."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from rayserve_platform.core.errors import Code, InputTooLong, PlatformError
from rayserve_platform.formats.source import locate
from rayserve_platform.runtimes.embedding.texts import Texts
from rayserve_platform.runtimes.embedding.tokenizer import load_tokenizer
from tests.unit.runtimes.embedding import tiny
from tests.unit.runtimes.embedding.conftest import DATA, MINILM

TEXT = st.text(st.characters(codec="utf-8"), max_size=60)


@pytest.fixture(scope="module", params=["bert", "roberta"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = getattr(tiny, request.param)(tmp_path_factory.mktemp("model") / request.param)
    return made


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def texts(folder: Path) -> Texts:
    return Texts(folder, max_tokens=40)


@given(text=TEXT)
def test_tokens_are_those_of_transformers(texts: Texts, theirs: Any, text: str) -> None:
    ids = theirs(text.strip()).input_ids
    if len(ids) > 40:
        with pytest.raises(InputTooLong):
            texts.rows([text], "inputs", None)
    else:
        assert list(texts.rows([text], "inputs", None)[0].ids) == ids


@given(text=TEXT, limit=st.integers(3, 60))
def test_a_cut_text_is_a_text_that_was_cut(
    texts: Texts, theirs: Any, text: str, limit: int
) -> None:
    """Caikit cuts the text behind the last token that leaves room for an end token."""
    text = text.strip()
    limit = min(limit, 40)
    whole = theirs(text, return_offsets_mapping=True)
    expected = whole.input_ids
    if len(expected) > limit:
        kept = whole.offset_mapping[: max(1, limit - 1)]
        start = next(begin for begin, end in whole.offset_mapping if (begin, end) != (0, 0))
        cut = text[start : max(end for _, end in kept)]
        expected = theirs(cut, truncation=True, max_length=40).input_ids
    assert list(texts.rows([text], "inputs", limit)[0].ids) == expected


def test_limits_saved_with_a_tokenizer_do_not_count(texts: Texts) -> None:
    # The files say: six tokens, no more and no less.
    assert len(texts.rows(["the fox un 12 34"], "inputs", None)[0].ids) > 6
    assert len(texts.rows(["a"], "inputs", None)[0].ids) == 3


def test_padding_is_the_model_s_own(texts: Texts, theirs: Any) -> None:
    assert texts.pad_id == theirs.pad_token_id


def test_token_ids_are_taken_as_they_are_and_cut_at_the_end(texts: Texts) -> None:
    assert texts.rows([(5, 6, 7)], "inputs", None)[0].ids == (5, 6, 7)
    assert texts.rows([(5, 6, 7)], "inputs", 2)[0].ids == (5, 6)


@pytest.mark.parametrize("ids", [(), (-1,), (5, 10**9)])
def test_token_ids_that_are_none_are_refused(texts: Texts, ids: tuple[int, ...]) -> None:
    with pytest.raises(PlatformError) as caught:
        texts.rows(["a", ids], "inputs", None)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert "'inputs' at index 1" in caught.value.message


def test_half_a_surrogate_pair_is_refused_by_its_place(texts: Texts) -> None:
    for call in (
        lambda: texts.rows(["a", "\ud800"], "inputs", None),
        lambda: texts.pairs(["a"], ["b", "x\udfff"], None),
        lambda: texts.tokens("\ud800", special=True, truncate=None),
    ):
        with pytest.raises(PlatformError, match="not valid Unicode") as caught:
            call()
        assert caught.value.code is Code.INVALID_ARGUMENT


def test_texts_that_are_too_long_are_told_longest_first_and_32_at_a_time(texts: Texts) -> None:
    long = ["the " * (40 + place) for place in range(70)]
    with pytest.raises(InputTooLong) as caught:
        texts.rows(["a", *long], "inputs", None)
    assert caught.value.indexes == tuple(range(70, 38, -1))  # as Caikit told of 70 such texts
    with pytest.raises(InputTooLong) as caught:
        texts.rows(["a" * 90] * 31 + ["the " * 20, "b " * 39], "inputs", None)
    assert 32 not in caught.value.indexes


@given(text=TEXT, limit=st.integers(0, 20))
def test_tokenizing_keeps_the_first_tokens_and_their_offsets(
    texts: Texts, theirs: Any, text: str, limit: int
) -> None:
    whole = theirs(text, return_offsets_mapping=True, truncation=True, max_length=max(2, limit))
    found = texts.tokens(text, special=True, truncate=limit)
    assert list(found.ids) == whole.input_ids
    assert list(found.offsets) == [tuple(pair) for pair in whole.offset_mapping]
    bare = texts.tokens(text, special=False, truncate=None)
    assert list(bare.ids) == theirs(text, add_special_tokens=False).input_ids


def test_detokenizing_gives_the_text_without_special_tokens(texts: Texts, theirs: Any) -> None:
    ids = theirs("the fox").input_ids
    assert texts.text(ids) == theirs.decode(ids, skip_special_tokens=True)
    with pytest.raises(PlatformError, match="token ids must be from 0 to"):
        texts.text([10**9])


def test_tokens_are_as_recorded_from_caikit() -> None:
    recorded = json.loads((DATA / "standalone_grpc/TokenizationTaskPredict.json").read_text())
    texts = Texts(locate(MINILM), max_tokens=256)
    checked = 0
    for case in recorded["cases"]:
        if case["response"]["code"] != "OK":
            continue
        answer = case["response"]["messages_json"][0]
        text = case["request"].get("text", "")
        found = texts.tokens(text, special=True, truncate=256)
        assert len(found.ids) == int(answer["token_count"])
        spans = [(begin, end) for begin, end in found.offsets if end > begin]
        expected = [(int(t.get("start", 0)), int(t["end"])) for t in answer.get("results", [])]
        assert spans == expected
        checked += 1
    assert checked == 2


def test_a_bert_tokenizer_s_config_wins_over_its_file(tmp_path: Path) -> None:
    folder = tiny.bert(tmp_path / "model")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"do_lower_case": False}))
    tokenizer = load_tokenizer(folder)
    assert tokenizer.encode("THE").tokens != tokenizer.encode("the").tokens


def test_a_vocabulary_without_tokenizer_json_is_converted(tmp_path: Path) -> None:
    folder = tiny.bert(tmp_path / "model")
    vocabulary = load_tokenizer(folder).get_vocab()
    names = sorted(vocabulary, key=lambda token: vocabulary[token])
    (folder / "vocab.txt").write_text("\n".join(names) + "\n")
    (folder / "tokenizer.json").unlink()
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True}))
    tokenizer = load_tokenizer(folder)
    assert tokenizer.encode("The fox").tokens == ["[CLS]", "the", "fox", "[SEP]"]


@pytest.mark.parametrize("content", ["{}", "[]", "not json", '{"model": 1}'])
def test_a_damaged_tokenizer_is_refused_in_words(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(PlatformError, match=r"tokenizer\.json") as caught:
        load_tokenizer(tmp_path)
    assert str(tmp_path) not in caught.value.message


def test_a_model_without_any_tokenizer_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path)
