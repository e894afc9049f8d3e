"""Settings of the embedding runtime: embedding models and cross-encoders on CPUs or one GPU."""

from typing import Literal

from pydantic import Field, model_validator

from rayserve_platform.settings.app import App, Ingress, Model
from rayserve_platform.settings.model import Settings


class EmbeddingEngine(Settings):
    """How the models are computed. They share the replica's threads, its queue and its device."""

    backend: Literal["auto", "openvino", "torch"] = "auto"
    """`auto`: OpenVINO on CPUs (a model that it can't convert runs on torch), torch on a GPU.
    Converting takes some seconds once a model; the result is kept in the cache."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: the GPU if `placement.num_gpus` asks for one, else the CPU."""
    precision: Literal["float32", "bfloat16", "float16", "int8"] = "float32"
    """What the model computes in. `float32` gives Caikit's vectors. `bfloat16`: both backends, for
    processors and GPUs that have it. `float16`: GPUs. `int8`: OpenVINO, on processors with VNNI or
    AMX alone, elsewhere it is slower than float32. Measured with all-MiniLM-L6-v2 on two cores with
    AVX-512 VNNI and BF16, 32 requests at a time: float32 693 sentences/s, bfloat16 989 (cosines to
    Caikit's vectors from 0.9999), int8 1099 (from 0.995)."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of computation in a replica; by default `placement.num_cpus`, at least one."""
    max_batch_tokens: int | None = Field(default=None, ge=1)
    """Most tokens in one batch, padding included; a longer text is a batch of its own. By default
    256 a thread and at least 512 on CPUs, where larger batches gain nothing and make others wait;
    16384 on GPUs."""
    max_queued_tokens: int | None = Field(default=None, ge=1)
    """Most tokens that wait for their turn; a request beyond them is refused at once as overload,
    unless nothing else waits. By default 64 batches: some seconds of work."""
    retry_after_s: float = Field(default=1.0, gt=0)
    """When a refused request may come again, in seconds."""
    segment_ids: bool = False
    """Tell a cross-encoder which tokens are the query's and which the document's. Caikit does not,
    so its scores of BERT models differ from those their authors published; off gives Caikit's."""
    allow_pickle: bool = False
    """Load weights that are pickled (`pytorch_model.bin`) where there are no safetensors. A pickle
    from a source you don't trust can run code in whatever reads it."""


class EmbeddingIngress(Ingress):
    """The ingress in front of embedding models speaks Caikit's API as well."""

    protocols: tuple[Literal["openai", "caikit", "kserve"], ...] = ("caikit", "openai")
    """Wire APIs that this ingress speaks. A path that several of them have (`/health`, `/docs`) is
    the first one's."""


class EmbeddingApp(App):
    """Args of `deployments.embedding:app`."""

    topology: Literal["separate", "colocated", "runtime"] = "colocated"
    """As in `App`; colocated by default, since a hop costs more than embedding a sentence."""
    ingress: EmbeddingIngress = EmbeddingIngress()
    models: tuple[Model, ...] = ()
    """The models by name. A source is a directory in Caikit's format (`config.yml`), a
    sentence-transformers or Hugging Face directory (with safetensors, or `openvino_model.xml` as
    optimum-intel exports it), or `package://<module>/<directory>`."""
    models_dir: str | None = Field(default=None, min_length=1)
    """A directory whose every folder is a model, named as the folder, as Caikit's
    `RUNTIME_LOCAL_MODELS_DIR`. One that can't be loaded doesn't keep the others from serving."""
    embedding: EmbeddingEngine = EmbeddingEngine()

    def listed_models(self) -> tuple[Model, ...]:
        return self.models

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Where the models run."""
        if self.embedding.device == "auto":
            return "cuda" if self.placement.num_gpus else "cpu"
        return self.embedding.device

    @property
    def backend(self) -> Literal["openvino", "torch"]:
        """What computes them."""
        if self.embedding.backend == "auto":
            return "torch" if self.device == "cuda" else "openvino"
        return self.embedding.backend

    @model_validator(mode="after")
    def _named(self) -> "EmbeddingApp":
        if not self.models and self.models_dir is None:
            raise ValueError("name at least one of 'models' and 'models_dir'")
        names: set[str] = set()
        for model in self.models:
            if model.source is None:
                raise ValueError(
                    f"models: '{model.id}' needs a source: a directory, or package://…"
                )
            for name in (model.id, *model.aliases):
                if name in names:
                    raise ValueError(f"models: the name '{name}' is given twice")
                names.add(name)
        return self

    @model_validator(mode="after")
    def _computable(self) -> "EmbeddingApp":
        engine, gpus = self.embedding, self.placement.num_gpus
        if gpus > 1:
            raise ValueError(
                f"placement.num_gpus: {gpus} is more than the one GPU a replica uses; "
                "scale with deployment.num_replicas"
            )
        if engine.device == "cuda" and not gpus:
            raise ValueError("embedding.device: 'cuda' needs placement.num_gpus > 0")
        if self.device == "cuda" and self.backend == "openvino":
            raise ValueError("embedding.backend: 'openvino' runs on CPUs; use 'torch' on a GPU")
        if engine.precision == "int8" and self.backend != "openvino":
            raise ValueError("embedding.precision: 'int8' needs the backend 'openvino'")
        if engine.precision == "float16" and self.device != "cuda":
            raise ValueError("embedding.precision: 'float16' needs a GPU; CPUs have 'bfloat16'")
        return self
