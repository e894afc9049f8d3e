"""Caikit's tasks, and what a model of ours is in Caikit's world.

Source: the API of caikit 0.27.7 with caikit-nlp 0.5.13: its `openapi.json`, its reflection, and the
names that its errors carry.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rayserve_platform.core.cards import ModelCard, Task

Documents = list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaikitTask:
    """One task.

    Args:
        name: the last part of its path.
        rpc: its gRPC method.
        title: how its request's types begin.
        function: the Python method that the original runs, for its errors.
        inputs: what a request must have, in the order of that method's arguments.
        parameters: what it may have.
        needs: the tasks a model's card must have.
        listed: the lists of the vocabulary in which a text that is too long is told by its place.
    """

    name: str
    rpc: str
    title: str
    function: str
    inputs: Mapping[str, Any]
    parameters: Mapping[str, Any]
    needs: frozenset[Task]
    listed: frozenset[str] = frozenset()


TRUNCATE: dict[str, Any] = {"truncate_input_tokens": int}
GENERATION: dict[str, Any] = {
    "max_new_tokens": int,
    "min_new_tokens": int,
    **TRUNCATE,
    "decoding_method": str,
    "top_k": int,
    "top_p": float,
    "typical_p": float,
    "temperature": float,
    "repetition_penalty": float,
    "max_time": float,
    "exponential_decay_length_penalty": {"start_index": int, "decay_factor": float},
    "stop_sequences": list[str],
    "seed": int,
    "preserve_input_text": bool,
    "input_tokens": bool,
    "generated_tokens": bool,
    "token_logprobs": bool,
    "token_ranks": bool,
    "include_stop_sequence": bool,
}


def _reranking(query: str) -> dict[str, Any]:
    return {
        "top_n": int,
        **TRUNCATE,
        "return_documents": bool,
        f"return_{query}": bool,
        "return_text": bool,
    }


EMBEDDING = CaikitTask(
    name="embedding",
    rpc="EmbeddingTaskPredict",
    title="EmbeddingTask",
    function="run_embedding",
    inputs={"text": str},
    parameters=TRUNCATE,
    needs=frozenset({Task.EMBED}),
)
EMBEDDINGS = CaikitTask(
    name="embedding-tasks",
    rpc="EmbeddingTasksPredict",
    title="EmbeddingTasks",
    function="run_embeddings",
    inputs={"texts": list[str]},
    parameters=TRUNCATE,
    needs=frozenset({Task.EMBED}),
    listed=frozenset({"inputs"}),
)
SIMILARITY = CaikitTask(
    name="sentence-similarity",
    rpc="SentenceSimilarityTaskPredict",
    title="SentenceSimilarityTask",
    function="run_sentence_similarity",
    inputs={"source_sentence": str, "sentences": list[str]},
    parameters=TRUNCATE,
    needs=frozenset({Task.EMBED, Task.SCORE}),
    listed=frozenset({"queries"}),
)
SIMILARITIES = CaikitTask(
    name="sentence-similarity-tasks",
    rpc="SentenceSimilarityTasksPredict",
    title="SentenceSimilarityTasks",
    function="run_sentence_similarities",
    inputs={"source_sentences": list[str], "sentences": list[str]},
    parameters=TRUNCATE,
    needs=frozenset({Task.EMBED, Task.SCORE}),
    listed=frozenset({"queries", "documents"}),
)
RERANK = CaikitTask(
    name="rerank",
    rpc="RerankTaskPredict",
    title="RerankTask",
    function="run_rerank_query",
    inputs={"query": str, "documents": Documents},
    parameters=_reranking("query"),
    needs=frozenset({Task.SCORE}),
    listed=frozenset({"queries", "documents"}),
)
RERANKS = CaikitTask(
    name="rerank-tasks",
    rpc="RerankTasksPredict",
    title="RerankTasks",
    function="run_rerank_queries",
    inputs={"queries": list[str], "documents": Documents},
    parameters=_reranking("queries"),
    needs=frozenset({Task.SCORE}),
    listed=frozenset({"queries", "documents"}),
)
TOKENIZATION = CaikitTask(
    name="tokenization",
    rpc="TokenizationTaskPredict",
    title="TokenizationTask",
    function="run_tokenizer",
    inputs={"text": str},
    parameters={},
    needs=frozenset(),
)
TEXT_GENERATION = CaikitTask(
    name="text-generation",
    rpc="TextGenerationTaskPredict",
    title="TextGenerationTask",
    function="run",
    inputs={"text": str},
    parameters=GENERATION,
    needs=frozenset({Task.GENERATE}),
)
STREAMED_TEXT_GENERATION = CaikitTask(
    name="server-streaming-text-generation",
    rpc="ServerStreamingTextGenerationTaskPredict",
    title="ServerStreamingTextGenerationTask",
    function="run_stream_out",
    inputs={"text": str},
    parameters=GENERATION,
    needs=frozenset({Task.GENERATE}),
)
TASKS = (
    EMBEDDING,
    EMBEDDINGS,
    SIMILARITY,
    SIMILARITIES,
    RERANK,
    RERANKS,
    TOKENIZATION,
    TEXT_GENERATION,
    STREAMED_TEXT_GENERATION,
)


def tasks_of(card: ModelCard) -> list[str]:
    """Return the names of the tasks that a model can be asked for."""
    return [task.name for task in TASKS if task.needs <= card.tasks]


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """The Caikit module that a model counts as: what answers and errors call it."""

    id: str
    class_name: str
    name: str
    version: str


EMBEDDING_MODULE = Module(
    id="eeb12558-b4fa-4f34-a9fd-3f5890e9cd3f",
    class_name="EmbeddingModule",
    name="EmbeddingModule",
    version="0.0.1",
)
CROSS_ENCODER_MODULE = Module(
    id="1673f8f2-726f-48cb-93a1-540c81f0f3c9",
    class_name="CrossEncoderModule",
    name="CrossEncoderModule",
    version="0.0.1",
)
TEXT_GENERATION_MODULE = Module(
    id="f9181353-4ccf-4572-bd1e-f12bcda26792",
    class_name="TextGenerationTGIS",
    name="Text Generation",
    version="0.1.0",
)
NO_MODULE = Module(id="", class_name="Model", name="", version="")


def module_of(card: ModelCard) -> Module:
    """Return the module that can do what the model can; one without a name where there is none."""
    if card.problem:
        return NO_MODULE
    if Task.EMBED in card.tasks:
        return EMBEDDING_MODULE
    if Task.SCORE in card.tasks:
        return CROSS_ENCODER_MODULE
    return TEXT_GENERATION_MODULE if Task.GENERATE in card.tasks else NO_MODULE
