"""Settings of the OpenVINO runtime: models that compute on tensors, on Intel's devices and any CPU.

What is said of a model bears the names of OpenVINO Model Server's config, where it has them.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, field_validator, model_validator

from rayserve_platform.settings.app import App, Ingress, Model
from rayserve_platform.settings.model import Settings, unknown_key

T = TypeVar("T")

LARGEST = 2**31 - 1


def _size(dim: int | str) -> int | str:
    if isinstance(dim, str):
        low, high = map(int, dim.split(":"))
        if not low <= high <= LARGEST:
            raise ValueError(f"'{dim}' is no range: write LOWEST:HIGHEST, up to {LARGEST}")
    elif not -1 <= dim <= LARGEST:
        raise ValueError(f"{dim} is no size: write -1 for any, or 0 to {LARGEST}")
    return dim


Dim = Annotated[int | Annotated[str, Field(pattern=r"^\d+:\d+$")], AfterValidator(_size)]
Shape = tuple[Dim, ...]
Numbers = float | tuple[float, ...]
Resize = Literal["linear", "cubic", "nearest"]
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "BF16", "FP32", "FP64",
]  # fmt: skip


OVMS = {"latest": "num_versions", "specific": "versions", "all": None}
"""What the object of each of OVMS's version policies holds."""


class VersionPolicy(Settings):
    """Which versions of a model are served: one of the three. The latest alone by default."""

    latest: int | None = Field(default=None, ge=1)
    """So many of the highest."""
    specific: tuple[int, ...] = ()
    """These, as far as they are there."""
    all: bool = False
    """Every one."""

    @model_validator(mode="before")
    @classmethod
    def _as_ovms(cls, data: Any) -> Any:
        """Take OVMS's `{latest: {num_versions: 2}}`, `{specific: {versions: [1]}}`, `{all: {}}`."""
        if not isinstance(data, Mapping):
            return data
        return {
            key: _of_ovms(key, value) if key in OVMS and isinstance(value, Mapping) else value
            for key, value in data.items()
        }

    @model_validator(mode="after")
    def _one(self) -> "VersionPolicy":
        if sum(map(bool, (self.latest, self.specific, self.all))) > 1:
            raise ValueError("give one of 'latest', 'specific' and 'all'")
        if any(version < 1 for version in self.specific):
            raise ValueError("specific: versions count from 1")
        return self

    @property
    def count(self) -> int | None:
        """How many of the highest versions; None for all of them."""
        return None if self.all else self.latest or 1


class Declared(Settings):
    """An input of a model whose file doesn't say what it takes."""

    datatype: Datatype = "FP32"
    """The Open Inference Protocol's name."""
    shape: Shape
    """-1 stands for a size that each request chooses."""


class OpenVINOEngine(Settings):
    """How a model is computed, and how requests share it."""

    device: str = Field(default="CPU", pattern=r"^[A-Za-z][A-Za-z0-9_.:,()-]*$")
    """OpenVINO's name: `CPU`, `GPU`, `GPU.1`, `NPU`, `AUTO`, `AUTO:GPU,CPU`, `MULTI:GPU,CPU`,
    `HETERO:GPU,CPU`, `BATCH:GPU(8)`."""
    performance_hint: Literal["latency", "throughput", "cumulative_throughput"] | None = None
    """OpenVINO's hint, which chooses the number of `streams` where that is not set. By default one
    stream on a CPU, and `latency` elsewhere."""
    streams: int | None = Field(default=None, ge=1)
    """Inferences of one model side by side on a CPU, each with its share of the threads. By default
    one, which takes all threads: a single request is answered soonest, and others are computed
    together next (all-MiniLM-L6-v2 on two cores, 32 requests of 32 tokens at a time: 597
    sentences/s, in two streams 309; without batching two streams 361)."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of computation on a CPU; by default `placement.num_cpus`, at least one."""
    precision: Literal["f32", "f16", "bf16", "dynamic"] = "f32"
    """What the device may compute in. OpenVINO by itself takes bfloat16 wherever a processor has
    it, which changes results; `f32` gives the source framework's. `dynamic`: OpenVINO's choice."""
    cache_dir: str | None = Field(default=None, min_length=1)
    """Folder for compiled models, so that a restart loads instead of compiling; as large as the
    models. Worth it on GPUs and NPUs."""
    plugin_config: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """Any property of the device under OpenVINO's own name; it wins over the settings above."""
    batching: Literal["auto", "on", "off"] = "auto"
    """Compute requests together along their first axis. `auto`: where every input and output has a
    free first axis, and a trial with random numbers shows that rows don't touch one another."""
    max_batch_size: int = Field(default=32, ge=1)
    """Most rows that are computed together; a larger request goes alone."""
    max_delay_ms: float = Field(default=0, ge=0, le=10_000)
    """How long a request waits for others to join it. 0: what comes in while the model is busy is
    computed together, and no request waits for another."""
    max_queued: int = Field(default=256, ge=1)
    """Most requests that wait for one version of a model; one more is refused at once as
    overload."""
    retry_after_s: float = Field(default=1.0, gt=0)
    """When a refused request may come again, in seconds."""


class OpenVINOModel(Model):
    """A model: its files, its versions, and what a client's tensors look like.

    What concerns tensors is given for each by name, or once for a model with a single input.
    """

    source: str = Field(min_length=1)
    """`MODEL/NUMBER/files`, a folder with one model, or its file; also `file://…`, and
    `package://MODULE/FOLDER` for a Hugging Face or sentence-transformers folder in a package."""
    version_policy: VersionPolicy = VersionPolicy()
    shape: Shape | dict[str, Shape] | None = None
    """Shapes to give inputs: -1 for any size, `"1:8"` for a range."""
    batch_size: int | Literal["auto"] | None = None
    """First axis of all inputs: a number, or `auto` for any."""
    layout: str | dict[str, str] | None = None
    """`"NHWC:NCHW"`: a client sends NHWC and the model takes NCHW; also of outputs, by name.
    `"NCHW"` only says which axis is which."""
    datatype: Datatype | dict[str, Datatype] | None = None
    """What a client sends where that is not what the model takes: `UINT8` for pictures."""
    color_format: str | dict[str, str] | None = None
    """`"BGR:RGB"`: a client sends BGR and the model takes RGB. Needs a layout with C."""
    resize: Resize | dict[str, Resize] | None = None
    """Take pictures of any size and make them the model's; needs a layout with H and W."""
    mean: Numbers | dict[str, Numbers] | None = None
    """Subtracted: a number, or one for each channel (needs a layout with C)."""
    scale: Numbers | dict[str, Numbers] | None = None
    """What is left is divided by it."""
    inputs: dict[str, Declared] = Field(default_factory=dict)
    """Names, datatypes and shapes of a TorchScript model's inputs, in the order of its `forward`:
    the file has none."""
    openvino: OpenVINOEngine | None = None
    """In place of the application's."""

    @field_validator("batch_size")
    @classmethod
    def _positive(cls, value: int | str | None) -> int | str | None:
        if isinstance(value, int) and value < 1:
            raise ValueError("must be at least 1, or 'auto'")
        return value

    @field_validator("layout")
    @classmethod
    def _axes(cls, value: str | dict[str, str] | None) -> str | dict[str, str] | None:
        for layout in given(value).values():
            sides = layout.split(":")
            same = len(sides) == 2 and sorted(sides[0]) == sorted(sides[1])
            if not (same or len(sides) == 1) or not all(_is_layout(side) for side in sides):
                raise ValueError(f"'{layout}' is no layout, such as NHWC or NHWC:NCHW")
        return value

    @field_validator("color_format")
    @classmethod
    def _colors(cls, value: str | dict[str, str] | None) -> str | dict[str, str] | None:
        for colors in given(value).values():
            if colors not in {"RGB:BGR", "BGR:RGB"}:
                raise ValueError(f"'{colors}' is neither RGB:BGR nor BGR:RGB")
        return value

    @field_validator("scale")
    @classmethod
    def _divides(cls, value: Any) -> Any:
        for numbers in given(value).values():
            if not all(numbers if isinstance(numbers, tuple) else (numbers,)):
                raise ValueError("must not be 0")
        return value


def given(value: T | Mapping[str, T] | None) -> Mapping[str, T]:
    """Return an option by tensor; what is given without a name stands under ""."""
    if value is None:
        return {}
    return value if isinstance(value, Mapping) else {"": value}


def _of_ovms(policy: str, given: Mapping[str, Any]) -> Any:
    """Return what stands in the object of one of OVMS's version policies."""
    inner = OVMS[policy]
    for key in given:
        if inner is None:
            raise ValueError(f"unknown setting '{key}'; '{policy}' takes none")
        if key != inner:
            raise ValueError(unknown_key(str(key), [inner], "setting"))
    if policy == "specific" and not given:
        raise ValueError("specific: 'versions' is required")
    return given.get(inner, 1) if inner else True


def _is_layout(text: str) -> bool:
    return text.isalpha() and text.isupper() and len(set(text)) == len(text)


class OpenVINOIngress(Ingress):
    """The ingress in front of models on tensors."""

    protocols: tuple[Literal["kserve", "openai"], ...] = ("kserve",)
    """Wire APIs that this ingress speaks; of OpenAI's there is the list of models."""


class OpenVINOApp(App):
    """Args of `deployments.openvino:app`."""

    topology: Literal["separate", "colocated", "runtime"] = "colocated"
    """As in `App`; colocated by default, since a hop costs more than a small model's inference."""
    models: tuple[OpenVINOModel, ...] = ()
    """The models by name."""
    models_dir: str | None = Field(default=None, min_length=1)
    """A directory whose every folder is a model, named as the folder. One that appears while the
    application runs is loaded; one that can't be loaded doesn't keep the others from serving."""
    poll_s: float = Field(default=1.0, ge=0)
    """How often folders are searched for new versions and models, in seconds; 0 for never."""
    openvino: OpenVINOEngine = OpenVINOEngine()
    ingress: OpenVINOIngress = OpenVINOIngress()

    def listed_models(self) -> tuple[Model, ...]:
        return self.models

    def made_sources(self) -> tuple[str, ...]:
        """Those in packages: the others are files of many formats, which the runtime knows."""
        sources = (model.source for model in self.models)
        return tuple(source for source in sources if source.lower().startswith("package://"))

    @model_validator(mode="after")
    def _named(self) -> "OpenVINOApp":
        if not self.models and self.models_dir is None:
            raise ValueError("name at least one of 'models' and 'models_dir'")
        names: set[str] = set()
        for model in self.models:
            for name in (model.id, *model.aliases):
                if name in names:
                    raise ValueError(f"models: the name '{name}' is given twice")
                names.add(name)
        return self

    @property
    def threads(self) -> int:
        """Threads that a model computes with on a CPU, where its engine doesn't say."""
        return max(1, round(self.placement.num_cpus))
