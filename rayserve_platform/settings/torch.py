"""Settings of the torch runtime: text generation by transformers' models on CPUs or one GPU."""

from typing import Literal

from pydantic import Field, model_validator

from rayserve_platform.settings.app import ModelApp
from rayserve_platform.settings.model import Settings


class TorchEngine(Settings):
    """How the model is computed and how requests share it."""

    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """What the model computes in. `auto`: what its files say on a GPU, `float32` on a CPU, where it
    is right and fast on every processor."""
    max_model_len: int | None = Field(default=None, ge=1)
    """Longest prompt and answer together, in tokens; of an encoder-decoder model, the longest of
    each. By default what the model was made for; where its files name no length, 2048, as TGIS."""
    max_batch_size: int = Field(default=16, ge=1)
    """Answers that are written at the same time. Each takes memory for its tokens, and all of them
    take a step together: more are more tokens a second, and longer between two of one answer."""
    max_waiting: int = Field(default=256, ge=1)
    """Requests that wait for a place; one more is refused at once as overload."""
    prefill_tokens: int = Field(default=2048, ge=1)
    """Most prompt tokens that are read between two steps, padding included, so that many prompts
    at once don't hold up the answers in progress; a longer prompt is read by itself."""


class TorchApp(ModelApp):
    """Args of `deployments.torch:app`."""

    engine: TorchEngine = TorchEngine()
    chat_template: str | None = None
    """Path of a `.jinja` file, or the template itself; for models that ship without one."""

    @model_validator(mode="after")
    def _whole(self) -> "TorchApp":
        if self.model.source is None:
            raise ValueError("model.source: required: a directory, or package://…")
        if self.placement.num_gpus > 1:
            raise ValueError(
                f"placement.num_gpus: {self.placement.num_gpus} is more than the one GPU a replica "
                "uses; larger models are for the vLLM runtime"
            )
        if self.engine.dtype == "float16" and not self.placement.num_gpus:
            raise ValueError("engine.dtype: 'float16' needs a GPU; CPUs have 'bfloat16'")
        return self
