"""What the Caikit part asks of each server: tasks on sentences, over REST and gRPC."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rayserve_platform.bench.calls import Call
from rayserve_platform.bench.protobuf import repeated_strings
from rayserve_platform.bench.rpc import RpcCall
from rayserve_platform.bench.sentences import WORDS, sentences

# Every server of the part has the model under this name.
MODEL_ID = "all-minilm-l6-v2-caikit"
BATCH = 32
# The sizes of batch that the model is measured with in process, and words of their sentences: those
# of the requests, then longer ones, of 32 tokens.
BATCHES = ((1, WORDS), (8, WORDS), (BATCH, WORDS), (8, 30), (BATCH, 30))

Task = Literal["embedding", "embedding-tasks", "rerank"]
Transport = Literal["REST", "gRPC"]

_REQUESTS = 128
_METHODS: Mapping[Task, str] = {
    "embedding": "/caikit.runtime.Nlp.NlpService/EmbeddingTaskPredict",
    "embedding-tasks": "/caikit.runtime.Nlp.NlpService/EmbeddingTasksPredict",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLoad:
    """So many clients that ask for one task over one transport."""

    task: Task
    transport: Transport
    concurrency: int

    @property
    def texts(self) -> int:
        """How many texts the model reads for one request; a rerank's query is one of them."""
        return {"embedding": 1, "embedding-tasks": BATCH, "rerank": BATCH + 1}[self.task]

    @property
    def label(self) -> str:
        """The task (with its number of texts) and who asks: `REST embedding c=8`."""
        size = "" if self.task == "embedding" else f" {BATCH}"
        return f"{self.transport} {self.task}{size} c={self.concurrency}"

    @property
    def ceiling(self) -> str:
        """The label of the run in process with as many texts at once as wait here at any time."""
        at_once = self.concurrency * self.texts
        return batch_label(max(size for size, _ in BATCHES if size <= at_once))


def batch_label(size: int, words: int = WORDS) -> str:
    """Return the label of the bare model's runs with so many texts at once, of so many words."""
    return f"batches of {size}" + (f", {words + 2} tokens each" if words != WORDS else "")


def _loads(task: Task, transport: Transport, *concurrency: int) -> tuple[TaskLoad, ...]:
    return tuple(
        TaskLoad(task=task, transport=transport, concurrency=clients) for clients in concurrency
    )


LOADS: tuple[TaskLoad, ...] = (
    *_loads("embedding", "REST", 1, 8, 32),
    *_loads("embedding", "gRPC", 1, 8, 32),
    *_loads("embedding-tasks", "REST", 1, 8),
    *_loads("embedding-tasks", "gRPC", 1, 8),
    *_loads("rerank", "REST", 1),
)


def task_call(load: TaskLoad, *, url: str, target: str, timeout_s: float) -> Call | RpcCall:
    """Return the request of a load to the server at `url` (REST) and `target` (gRPC)."""
    texts = sentences(_REQUESTS * load.texts)
    # No text comes twice among them: a server that remembers answers gains nothing at first.
    requests = [texts[at : at + load.texts] for at in range(0, len(texts), load.texts)]
    if load.transport == "gRPC":
        return RpcCall(
            target=target,
            method=_METHODS[load.task],
            bodies=tuple(repeated_strings(request) for request in requests),
            metadata={"mm-model-id": MODEL_ID},
            timeout_s=timeout_s,
        )
    return Call(
        url=f"{url}/api/v1/task/{load.task}",
        bodies=tuple(_body(load.task, request) for request in requests),
        timeout_s=timeout_s,
        openai=False,
    )


def _body(task: Task, texts: Sequence[str]) -> bytes:
    inputs: object
    match task:
        case "embedding":
            inputs = texts[0]
        case "embedding-tasks":
            inputs = texts
        case "rerank":
            inputs = {"query": texts[0], "documents": [{"text": text} for text in texts[1:]]}
    return json.dumps({"model_id": MODEL_ID, "inputs": inputs}).encode()
