"""Pairs of a cross-encoder are cut and refused as the real Caikit does it."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from rayserve_platform.core.cards import ModelCard, Task
from rayserve_platform.core.errors import InputTooLong, PlatformError
from rayserve_platform.protocols.caikit import tasks
from rayserve_platform.protocols.caikit.translate import to_rerank, too_long
from rayserve_platform.runtimes.embedding.texts import Texts
from tests.unit.runtimes.embedding import tiny
from tests.unit.runtimes.embedding.conftest import DATA

TEXT = st.text(st.characters(codec="utf-8"), max_size=60)


@cache
def recorded() -> Any:
    return json.loads((DATA / "cross_encoder.json").read_text())


LIMIT = recorded()["max_seq_length"]
CARD = ModelCard(
    id="m", root="", runtime="embedding", tasks=frozenset({Task.SCORE}), max_model_len=LIMIT
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The models that Caikit was given."""
    root = tmp_path_factory.mktemp("models")
    makers = {"bert": tiny.bert_cross, "roberta": tiny.roberta_cross}
    return {name: make(root / name) for name, make in makers.items()}


@pytest.fixture(scope="module")
def texts(folders: dict[str, Path]) -> dict[str, Texts]:
    return {name: Texts(folder, max_tokens=LIMIT) for name, folder in folders.items()}


def cases(what: str) -> list[Any]:
    return [
        pytest.param(model, case, id=f"{model}-{case.get('id', place)}")
        for model in ("bert", "roberta")
        for place, case in enumerate(recorded()[model][what])
    ]


def reranked(texts: Texts, case: Any) -> list[list[int]] | str:
    """The tokens of each pair, or the error that Caikit's protocol tells."""
    try:
        asked = to_rerank(case, CARD, "id")
        rows = texts.pairs(
            asked.queries, asked.documents, asked.truncate_tokens, lenient=asked.lenient
        )
    except InputTooLong as error:
        return too_long(tasks.RERANKS, tasks.module_of(CARD), error).message
    except PlatformError as error:
        return error.message
    return [list(row.ids) for row in rows]


@pytest.mark.parametrize(("model", "case"), cases("rerank"))
def test_a_rerank_gives_the_recorded_tokens_or_error(
    texts: dict[str, Texts], model: str, case: Any
) -> None:
    found = reranked(texts[model], case)
    assert found == case.get("error", case.get("ids"))
    if "ids" in case:
        assert sum(map(len, found)) == case["input_token_count"]


@pytest.mark.parametrize(("model", "case"), cases("tokenization"))
def test_tokenization_gives_the_recorded_places(
    texts: dict[str, Texts], model: str, case: Any
) -> None:
    found = texts[model].tokens(case["text"], special=True, truncate=LIMIT)
    assert len(found.ids) == case["token_count"]
    assert [[begin, end] for begin, end in found.offsets if end > begin] == case["results"]


@pytest.mark.parametrize("model", ["bert", "roberta"])
def test_who_is_not_lenient_gets_no_pair_that_was_cut(texts: dict[str, Texts], model: str) -> None:
    refused = 0
    for case in recorded()[model]["rerank"]:
        asked = [str(document.get("text") or "") for document in case["documents"]]
        cut = texts[model].pairs(case["queries"], asked, LIMIT)
        if all(len(row.ids) < LIMIT for row in cut):
            assert texts[model].pairs(case["queries"], asked, None) == cut
        elif (
            model == "roberta" and len(case["documents"]) == 3 and case["id"][:4] == "cut_"
        ):  # which Caikit cuts unseen
            with pytest.raises(InputTooLong) as caught:
                texts[model].pairs(case["queries"], asked, None)
            assert (caught.value.field, caught.value.indexes) == ("documents", (0, 2))
            refused += 1
    assert refused == (19 if model == "roberta" else 0)


@given(query=TEXT, document=TEXT, limit=st.integers(5, LIMIT))
@pytest.mark.parametrize("model", ["bert", "roberta"])
def test_pairs_are_cut_as_transformers_cuts_them(
    folders: dict[str, Path], *, model: str, query: str, document: str, limit: int
) -> None:
    # In lists, as Caikit does: by itself an empty second text would count as none.
    given = [query.strip()], [document.strip()]
    theirs = tokenizer(folders[model])(
        *given, truncation=True, max_length=limit, return_token_type_ids=True
    )
    (row,) = with_segments(folders[model]).pairs([query], [document], limit)
    assert list(row.ids) == theirs.input_ids[0]
    assert list(row.segments) == theirs.token_type_ids[0]


@cache
def with_segments(folder: Path) -> Texts:
    return Texts(folder, max_tokens=LIMIT, segments=True)


@cache
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def test_a_long_query_is_tokenized_once_for_all_documents(texts: dict[str, Texts]) -> None:
    query = "the quick fox " * 20_000
    rows = texts["bert"].pairs([query], ["a"] * 2_000, LIMIT)
    assert {len(row.ids) for row in rows} == {LIMIT}
    assert len(rows) == 2_000
