"""Settings of the GenAI runtime: text generation on CPUs by OpenVINO GenAI."""

from typing import Literal

from pydantic import Field, model_validator

from rayserve_platform.settings.app import ModelApp
from rayserve_platform.settings.model import Settings


class GenAIEngine(Settings):
    """How the model is computed and how requests share it."""

    device: str = Field(default="CPU", pattern=r"^[A-Za-z][A-Za-z0-9_.:,()-]*$")
    """OpenVINO's name: `CPU`, `GPU`, `GPU.1`."""
    max_model_len: int | None = Field(default=None, ge=1)
    """Longest prompt and answer together, in tokens. By default what the model was made for; where
    its files name no length, 2048, as TGIS."""
    max_batch_size: int = Field(default=64, ge=1)
    """Answers that are written at the same time, a step together."""
    max_waiting: int = Field(default=256, ge=1)
    """Answers that wait for a place; a request with more is refused at once as overload."""
    prefill_tokens: int = Field(default=512, ge=16)
    """Most tokens in a step; longer prompts are read in pieces between the steps of others."""
    kv_cache_gib: int | None = Field(default=None, ge=1)
    """Memory for the tokens of all answers, in GiB. By default a quarter of `placement.memory_gib`,
    at least 1."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of computation on a CPU; by default `placement.num_cpus`, at least one."""
    precision: Literal["f32", "f16", "bf16", "auto"] = "f32"
    """What the device may compute in, and keep of the tokens. `auto` is OpenVINO's choice: bfloat16
    wherever a processor has it, and a byte for a number of the latter."""
    dynamic_quantization: bool = True
    """Round what compressed weights are multiplied with to 8 bits, in groups with a scale of their
    own, as OpenVINO does by itself on a CPU: up to twice as fast. Off, texts in `f32` do not depend
    on what else is written at the time. Weights that are not compressed know no difference."""
    cache_dir: str | None = Field(default=None, min_length=1)
    """Folder for compiled models, so that a restart loads instead of compiling."""
    plugin_config: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """Any property of the device under OpenVINO's own name (`KV_CACHE_PRECISION`, …); it wins over
    the settings above."""


class GenAIApp(ModelApp):
    """Args of `deployments.genai:app`."""

    engine: GenAIEngine = GenAIEngine()
    chat_template: str | None = None
    """Path of a `.jinja` file, or the template itself; for models that ship without one."""

    @model_validator(mode="after")
    def _whole(self) -> "GenAIApp":
        if self.model.source is None:
            raise ValueError(
                "model.source: required: a .gguf file, a directory of OpenVINO IR, or package://…"
            )
        if self.placement.num_gpus:
            raise ValueError(
                "placement.num_gpus: this engine computes on CPUs and Intel's own devices; models "
                "on GPUs are for the vLLM runtime"
            )
        return self

    def made_sources(self) -> tuple[str, ...]:
        """None: the engine reads models as they are."""
        return ()

    @property
    def threads(self) -> int:
        """Threads of computation."""
        return self.engine.threads or max(1, int(self.placement.num_cpus))

    @property
    def kv_cache_gib(self) -> int:
        """Memory for the tokens of all answers."""
        return self.engine.kv_cache_gib or max(1, int((self.placement.memory_gib or 0) / 4))
