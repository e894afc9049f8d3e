"""Requests to the vocabulary. What Caikit answers is checked by the replay of its recordings."""

from dataclasses import replace

import numpy as np
import pytest

from rayserve_platform.core.cards import ModelCard, Task
from rayserve_platform.core.errors import InputTooLong, PlatformError
from rayserve_platform.protocols.caikit import tasks
from rayserve_platform.protocols.caikit.translate import (
    check,
    check_size,
    document_text,
    ranking,
    to_embed,
    to_rerank,
    to_similarity,
    to_tokenize,
    too_long,
    truncation,
)


def card(*able: Task, max_model_len: int | None = 256, problem: str = "") -> ModelCard:
    return ModelCard(
        id="m",
        root="m",
        runtime="fake",
        tasks=frozenset(able),
        max_model_len=max_model_len,
        problem=problem,
    )


EMBEDDER = card(Task.EMBED, Task.SCORE)
CROSS_ENCODER = card(Task.SCORE)
LLM = card(Task.GENERATE)
GENERATION = {"text-generation", "server-streaming-text-generation"}


@pytest.mark.parametrize(
    ("asked", "kept"),
    # As recorded: embedding/long_truncate_* and embedding/truncate_huge.
    [(1, 3), (10, 12), (253, 255), (254, 256), (255, 256), (256, 256), (-1, 256), (-(2**70), 256)],
)
def test_a_text_is_cut_to_its_own_tokens_and_two_of_the_model(asked, kept):
    assert truncation({"truncate_input_tokens": asked}, EMBEDDER) == kept


@pytest.mark.parametrize(
    "arguments", [{}, *({"truncate_input_tokens": n} for n in (0, 257, 2**63))]
)
def test_a_text_is_not_cut_without_a_number_within_the_models_length(arguments):
    assert truncation(arguments, EMBEDDER) is None


def test_a_model_without_a_length_cuts_where_it_is_told():
    endless = card(Task.EMBED, max_model_len=None)
    assert truncation({"truncate_input_tokens": 7}, endless) == 9
    assert truncation({"truncate_input_tokens": -1}, endless) is None


@pytest.mark.parametrize(
    ("model", "able"),
    [
        (EMBEDDER, {task.name for task in tasks.TASKS} - GENERATION),
        (CROSS_ENCODER, {"rerank", "rerank-tasks", "tokenization"}),
        (LLM, {"tokenization"} | GENERATION),
        (card(Task.EMBED), {"embedding", "embedding-tasks", "tokenization"}),
    ],
)
def test_a_model_is_asked_for_what_it_can_do_and_told_what_that_is(model, able):
    assert set(tasks.tasks_of(model)) == able
    for task in tasks.TASKS:
        arguments = dict.fromkeys(task.inputs, "x")
        if task.name in able:
            check(task, model, arguments)
        else:
            with pytest.raises(PlatformError) as caught:
                check(task, model, arguments)
            listed = caught.value.message.removesuffix(".").partition("Its tasks: ")[2]
            assert set(listed.split(", ")) == able


@pytest.mark.parametrize(
    ("model", "module"),
    [
        (EMBEDDER, "EmbeddingModule"),
        (CROSS_ENCODER, "CrossEncoderModule"),
        (LLM, "Text Generation"),
        (card(Task.INFER), ""),
        (card(Task.EMBED, problem="no weights"), ""),
    ],
)
def test_a_model_counts_as_the_module_that_can_do_what_it_can(model, module):
    assert tasks.module_of(model).name == module


def test_a_cross_encoders_errors_name_its_own_class():
    with pytest.raises(PlatformError, match=r"^CrossEncoderModule\.run_rerank_query\(\) missing 2"):
        check(tasks.RERANK, CROSS_ENCODER, {})


def test_one_text_and_several_become_inputs_in_their_order():
    assert to_embed({"text": ""}, EMBEDDER, "id").inputs == ("",)
    assert to_embed({"texts": ["b", "a"]}, EMBEDDER, "id").inputs == ("b", "a")
    similarity = to_similarity({"source_sentence": "s", "sentences": ["a", "b"]}, EMBEDDER, "id")
    assert (similarity.queries, similarity.documents) == (("a", "b"), ("s",))
    rerank = to_rerank({"queries": ["q"], "documents": [{"text": "a"}]}, EMBEDDER, "id")
    assert (rerank.queries, rerank.documents) == (("q",), ("a",))


@pytest.mark.parametrize(
    "arguments",
    [
        {"source_sentence": "a", "sentences": []},
        {"source_sentences": [], "sentences": ["a"]},
    ],
)
def test_nothing_cannot_be_compared(arguments):
    with pytest.raises(PlatformError, match="Cannot compare"):
        to_similarity(arguments, EMBEDDER, "id")


def test_documents_are_scored_by_their_text_else_their_other_text():
    documents = [{"text": "a", "_text": "b"}, {"text": "", "_text": "b"}, {"text": None}, {}]
    assert to_rerank({"query": "q", "documents": documents}, EMBEDDER, "id").documents == (
        *("a", "b", "", ""),
    )


@pytest.mark.parametrize(
    ("value", "kind"),
    [(5, "int"), (5.5, "float"), (True, "bool"), ([1], "list"), ({"a": 1}, "dict")],
)
def test_a_text_that_is_none_is_refused_by_its_type(value, kind):
    with pytest.raises(PlatformError, match=f"has type `{kind}` not in"):
        document_text({"text": value})


@pytest.mark.parametrize("document", [{"_text": None}, {"text": None, "_text": None}])
def test_a_second_text_that_is_null_is_refused_as_caikit_does(document):
    with pytest.raises(PlatformError, match="has type `NoneType` not in"):
        document_text(document)


@pytest.mark.parametrize(
    ("task", "arguments", "size_bytes"),
    [
        (tasks.EMBEDDINGS, {"texts": [""] * 50_000}, 150_000),
        (tasks.SIMILARITIES, {"source_sentences": [""] * 5000, "sentences": [""] * 5000}, 30_000),
        (tasks.RERANKS, {"queries": [""] * 5000, "documents": [{}] * 5000}, 30_000),
        (tasks.RERANKS, {"queries": [""] * 1000, "documents": [{}]}, 300_000),
    ],
)
def test_a_small_request_for_a_huge_answer_is_refused(task, arguments, size_bytes):
    model = replace(EMBEDDER, dimension=384)
    with pytest.raises(PlatformError, match="larger than 256 MiB"):
        check_size(task, model, arguments, size_bytes)
    few = {name: given[:200] for name, given in arguments.items()}
    check_size(task, model, few, size_bytes)


def test_documents_that_are_not_to_be_told_are_not_counted():
    arguments = {"queries": [""] * 1000, "documents": [{}]}
    check_size(
        tasks.RERANKS,
        CROSS_ENCODER,
        arguments | {"return_documents": False, "return_text": False},
        300_000,
    )
    for task in tasks.TASKS:
        if len(task.inputs) == 1 and task is not tasks.EMBEDDINGS:
            check_size(task, EMBEDDER, {"text": "x" * 10**6}, 10**6)


def test_a_cross_encoder_counts_its_separators_in():
    # As Caikit's cross-encoder does: `tests/data/caikit/cross_encoder.json`.
    for asked, kept in ((1, 1), (12, 12), (256, 256), (-1, 256), (0, None), (257, None)):
        assert truncation({"truncate_input_tokens": asked}, CROSS_ENCODER) == kept


def test_what_embeds_is_tokenized_as_far_as_it_would_be_embedded():
    for model, most in ((EMBEDDER, 256), (CROSS_ENCODER, 256), (LLM, None)):
        request = to_tokenize({"text": "x"}, model, "id")
        assert (request.truncate_tokens, request.truncate_side) == (most, "right")


def test_a_ranking_is_best_first_and_equals_keep_their_order():
    scores = np.array([0.5, 0.9, 0.5, 0.1], dtype=np.float32)
    assert [place for place, _ in ranking(scores, {})] == [1, 0, 2, 3]
    assert [place for place, _ in ranking(scores, {"top_n": 2})] == [1, 0]
    assert len(ranking(scores, {"top_n": 2**70})) == 4
    assert len(ranking(scores, {"top_n": -(2**70)})) == 4


@pytest.mark.parametrize(
    ("task", "field", "listed"),
    [
        (tasks.EMBEDDING, "inputs", False),
        (tasks.EMBEDDINGS, "inputs", True),
        (tasks.SIMILARITY, "documents", False),
        (tasks.SIMILARITY, "queries", True),
        (tasks.SIMILARITIES, "queries", True),
        (tasks.RERANK, "queries", True),
        (tasks.RERANKS, "documents", True),
    ],
)
def test_a_text_too_long_is_told_by_its_place_where_it_stands_in_a_list(task, field, listed):
    error = too_long(
        task, tasks.EMBEDDING_MODULE, InputTooLong(limit=8, field=field, indexes=(3, 1))
    )
    assert error.message.startswith("Token sequence length (+2 for start/end tokens) exceeds")
    assert error.message.endswith(
        "(8) for text at indexes: 3, 1." if listed else "for this model (8)."
    )
