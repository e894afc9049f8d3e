"""Settings of a language model whose engine follows from where it runs."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from rayserve_platform.settings.app import ModelApp
from rayserve_platform.settings.genai import GenAIApp, GenAIEngine
from rayserve_platform.settings.vllm import VLLMApp

GENAI = (
    "OpenVINO GenAI, since no GPU is asked for and it reads this model: several times as fast "
    "there as vLLM's CPU build. What vLLM has besides (tool calls, /v1/responses, /v1/messages, "
    "LoRA, logit_bias, alternatives in log probabilities, typical_p) is refused by name; "
    "'engine: vllm' brings it"
)
GPU = "vLLM, since GPUs are asked for"
OTHER = (
    "vLLM, since OpenVINO GenAI does not read this model: it takes a .gguf file, or a directory "
    "with openvino_model.xml"
)


class LLMApp(ModelApp):
    """Args of `deployments.llm:app`."""

    engine: Literal["auto", "genai", "vllm"] = "auto"
    """`auto`: without a GPU OpenVINO GenAI, where it reads the model; else vLLM."""
    chat_template: str | None = None
    """Path of a `.jinja` file, or the template itself; for models that ship without one."""
    genai: GenAIEngine = GenAIEngine()
    """For OpenVINO GenAI: `engine` of `deployments.genai:app`."""
    vllm: dict[str, Any] = Field(default_factory=dict)
    """For vLLM: args of `deployments.vllm:app` besides those above (`engine`, `frontend`, …)."""

    @model_validator(mode="after")
    def _whole(self) -> "LLMApp":
        self.chosen()
        return self

    def chosen(self) -> GenAIApp | VLLMApp:
        """Return the args of the engine that serves the model."""
        shared = {
            name: getattr(self, name)
            for name in ("topology", "model", "placement", "deployment", "ingress", "chat_template")
            if name in self.model_fields_set
        }
        if self._kind == "genai":
            return GenAIApp(**shared, engine=self.genai)
        return VLLMApp.model_validate(shared | self.vllm)

    @property
    def explained(self) -> str:
        """Which engine `auto` takes, and why."""
        if self._kind == "genai":
            return GENAI
        return GPU if self.placement.num_gpus else OTHER

    def made_sources(self) -> tuple[str, ...]:
        return self.chosen().made_sources()

    @property
    def _kind(self) -> Literal["genai", "vllm"]:
        if self.engine != "auto":
            return self.engine
        return "genai" if not self.placement.num_gpus and self._is_readable else "vllm"

    @property
    def _is_readable(self) -> bool:
        source = self.model.source or ""
        directory = Path(source.removeprefix("file://")).expanduser()
        return source.lower().endswith(".gguf") or (directory / "openvino_model.xml").is_file()
