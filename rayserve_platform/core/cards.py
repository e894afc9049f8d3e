"""What a runtime says of the models it serves. Plain frozen dataclasses, as `core.messages`."""

from dataclasses import dataclass
from enum import StrEnum

from rayserve_platform.core.tensors import ModelVersion


class Task(StrEnum):
    """What a model can be asked for."""

    GENERATE = "generate"
    EMBED = "embed"
    CLASSIFY = "classify"
    SCORE = "score"
    INFER = "infer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA adapter that a model serves under a name of its own."""

    name: str
    root: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What a runtime says of the model it serves.

    Args:
        id: the name clients use; `aliases` are other names for the same model.
        root: where it was loaded from, as the operator wrote it.
        runtime: the kind of runtime, for messages and status.
        max_model_len: prompt + new tokens; None where the notion does not apply.
        chat: whether the model has a chat template.
        encoder_decoder: whether the prompt is read by an encoder, and the text begins anew.
        created: Unix seconds.
        size_bytes: size of its files; 0 where it is not known.
        problem: why it cannot be served, where it could not be loaded; then nothing else of the
            card need be true but `id`, `root` and `runtime`.
        native: routes ("POST /v1/chat/completions") that the runtime answers by itself through
            `NativeHttp`; empty for runtimes that speak only the vocabulary.
        platform: what kind of model it is, in the Open Inference Protocol's sense ("OpenVINO").
        versions: of a model that takes tensors, those that are or were loaded; the highest
            available one answers where a request names none.
    """

    id: str
    root: str
    runtime: str
    tasks: frozenset[Task]
    aliases: tuple[str, ...] = ()
    max_model_len: int | None = None
    adapters: tuple[Adapter, ...] = ()
    chat: bool = False
    encoder_decoder: bool = False
    dimension: int | None = None
    created: int = 0
    size_bytes: int = 0
    problem: str = ""
    native: frozenset[str] = frozenset()
    engine_version: str = ""
    platform: str = ""
    versions: tuple[ModelVersion, ...] = ()
