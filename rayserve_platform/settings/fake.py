"""Settings of the fake runtime: a deterministic engine with scripted delays and failures."""

from typing import Literal

from pydantic import Field

from rayserve_platform.settings.app import ModelApp
from rayserve_platform.settings.model import Settings


class FakeTensor(Settings):
    """A tensor that the fake engine takes."""

    datatype: str = "FP32"
    """The Open Inference Protocol's name."""
    shape: tuple[int, ...]
    """-1 stands for a size that each request chooses."""


class FakeEngine(Settings):
    """How the fake engine behaves. Times are seconds."""

    load_s: float = Field(default=0.0, ge=0)
    """How long it takes to become ready."""
    first_token_s: float = Field(default=0.0, ge=0)
    """Delay before the first token."""
    token_s: float = Field(default=0.0, ge=0)
    """Delay before each further token."""
    max_model_len: int = Field(default=4096, ge=1)
    """Prompt + new tokens; words count as tokens."""
    dimension: int = Field(default=8, ge=1)
    """Length of its embeddings."""
    tasks: tuple[Literal["generate", "embed", "score", "infer"], ...] = (
        "generate",
        "embed",
        "score",
    )
    """What it offers."""
    fail_after_tokens: int | None = Field(default=None, ge=0)
    """Raise an unexpected error after this many tokens of each request."""
    inputs: dict[str, FakeTensor] = Field(default_factory=dict)
    """The tensors it takes, by name; needs the task `infer`. For each there is an output of the
    same datatype and shape, `out_<name>`: numbers with a fraction come back as 2x + version, all
    else as it came."""
    versions: tuple[str, ...] = ("1",)
    """Versions of its model."""
    infer_s: float = Field(default=0.0, ge=0)
    """How long an inference takes."""
    fail_infer: bool = False
    """Raise an unexpected error at each inference."""
    adapters: tuple[str, ...] = ()
    """Names of the adapters it knows; they change nothing."""
    overloaded: bool = False
    """Answer every request as an engine with a full queue does."""


class FakeApp(ModelApp):
    """Args of `deployments.fake:app`."""

    fake: FakeEngine = FakeEngine()
