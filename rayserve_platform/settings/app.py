"""Settings that every application shares: model, topology, placement, ingress."""

import re
from ipaddress import ip_network
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from rayserve_platform.settings.audit import Audit
from rayserve_platform.settings.auth.app import Auth
from rayserve_platform.settings.limits import Quotas
from rayserve_platform.settings.model import Settings


class Model(Settings):
    """Which model is served, under which names, and where its files are."""

    id: str = Field(min_length=1, max_length=256)
    """The name clients put into `model`; `/v1/models` lists it."""
    aliases: tuple[str, ...] = ()
    """Further names for the same model."""
    source: str | None = None
    """Where the files are: a local directory, or `package://<module>/<file>.gguf` for a model that
    an installed Python package ships (made into a Hugging Face directory once, in a cache, for
    engines that can't read it as it is)."""


class Placement(Settings):
    """What one replica's engine needs from the cluster.

    Tensor and pipeline parallel sizes come from the engine's own arguments and multiply `num_gpus`.
    """

    num_cpus: float = Field(default=1, ge=0)
    """CPU cores (logical) reserved for the replica; a CPU engine also takes its threads from it."""
    num_gpus: float = Field(default=0, ge=0)
    """GPUs for each engine worker. A fraction (0.5) shares a GPU; only without parallelism."""
    memory_gib: float | None = Field(default=None, gt=0)
    """Memory reserved for the replica in GiB. On CPU the KV cache is sized from it."""
    accelerator_type: str | None = None
    """Ray's name of the accelerator, e.g. `A100`, `H100`, `L4`."""
    resources: dict[str, float] = Field(default_factory=dict)
    """Custom Ray resources a replica needs, by name."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables of the replica's process. Not for secrets: `serve status`
    shows them."""

    @model_validator(mode="after")
    def _share_or_whole(self) -> "Placement":
        if self.num_gpus > 1 and self.num_gpus != int(self.num_gpus):
            raise ValueError(f"num_gpus: {self.num_gpus} is neither a share of one GPU nor whole")
        if self.accelerator_type and not self.num_gpus:
            raise ValueError("accelerator_type needs num_gpus > 0")
        return self


class Limits(Settings):
    """What one ingress replica accepts before it says no."""

    max_concurrent_requests: int = Field(default=512, ge=1)
    """Requests in progress in one ingress replica; one more is answered 429 with Retry-After.
    512 is twice what one vLLM engine runs at a time by default: the rest is a bounded queue."""
    retry_after_s: float = Field(default=1.0, gt=0)
    """What `Retry-After` says on 429, in seconds."""
    load_wait_s: float = Field(default=300.0, gt=0)
    """How long a request waits for a model that is loading, waking or being replaced, in seconds;
    then it is answered 503."""
    max_body_mib: float = Field(default=32.0, gt=0)
    """Largest request body in MiB; larger ones are answered 413 before they are read. KServe v2 has
    it over gRPC as well, for a request's raw tensors."""


class Tgis(Settings):
    """How the TGIS protocol answers."""

    default_max_new_tokens: int | None = Field(default=20, ge=1)
    """New tokens for a request that doesn't say. 20 as in TGIS: an answer that nobody bounded stays
    short. `null` as in vllm-tgis-adapter: as many as `max_new_tokens` and the model allow."""
    max_new_tokens: int = Field(default=1024, ge=1)
    """The most that a request may ask for, as in TGIS: its clients know the number."""
    default_include_stop_seqs: bool = True
    """Whether a stop sequence that was met ends the text where a request doesn't say; TGIS's own
    choice."""
    output_special_tokens: bool = False
    """Whether special tokens stand in the text; off, since clients want to read it."""
    prompt_logprobs: bool = True
    """Whether a request may have log probabilities of its input. On, since TGIS has them; they cost
    a whole pass over the input, cached or not."""

    @model_validator(mode="after")
    def _within(self) -> "Tgis":
        if (self.default_max_new_tokens or 0) > self.max_new_tokens:
            raise ValueError(
                f"default_max_new_tokens: must be <= max_new_tokens ({self.max_new_tokens})"
            )
        return self


class Caikit(Settings):
    """How the Caikit protocol answers."""

    max_new_tokens: int = Field(default=1024, ge=20)
    """The most that a request for text may ask for, as in the TGIS behind Caikit: its clients know
    the number. One that doesn't say gets 20, which is why it can't be less."""


class OpenAI(Settings):
    """What the OpenAI protocol lets a request ask for."""

    max_choices: int = Field(default=512, ge=1)
    """Continuations that one request may ask for: its prompts times its `n`. As many as requests in
    progress in one ingress replica by default: a single one should not be worth more."""
    media_hosts: tuple[str, ...] = ()
    """Hosts of which the ingress fetches images, sound and video that a request names; none by
    default. An engine gets the files, never the addresses. No redirect is followed."""
    media_networks: tuple[str, ...] = ()
    """Networks (`10.1.0.0/16`) in which these hosts may be, besides the public internet: a name
    that leads to any other private, local or special address is refused, whoever owns it."""
    max_media: int = Field(default=16, ge=1)
    """Files that one request may have fetched."""
    max_media_mib: float = Field(default=32.0, gt=0)
    """Their sizes together in MiB; as much as a request may bring itself by default."""
    media_timeout_s: float = Field(default=10.0, gt=0)
    """How long fetching all of them may take, in seconds."""

    @field_validator("media_hosts")
    @classmethod
    def _plain(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if not re.fullmatch(r"[a-z0-9.-]+", host):
                raise ValueError(f"'{host}' is not a host's name in lower case")
        return value

    @field_validator("media_networks")
    @classmethod
    def _network(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ip_network(network)
        return value


class KServe(Settings):
    """How the KServe v2 protocol answers."""

    repository_api: bool = False
    """Whether clients may list, load and unload the models of the runtime's repository. Needs a
    runtime that runs in exactly one replica: a request reaches only one of several."""


class Ingress(Settings):
    """The deployment that clients talk to."""

    protocols: tuple[Literal["openai", "caikit", "tgis", "kserve"], ...] = ("openai",)
    """Wire APIs that this ingress speaks. A path that several of them have (`/health`, `/docs`) is
    the first one's."""
    limits: Limits = Limits()
    auth: Auth | None = Field(default=None, exclude_if=lambda value: value is None)
    """Token checks. Without them whoever reaches the ingress may call every model."""
    cache_salt: Literal["principal", "off"] = "principal"
    """With `auth`: whether an engine that remembers the beginnings of prompts (vLLM's prefix cache)
    does so for each caller apart: how fast an answer begins tells what was asked before. The price:
    a system prompt that callers share is computed and kept once for each. `off` shares all."""
    tgis: Tgis = Tgis()
    """For an ingress that speaks `tgis`."""
    caikit: Caikit = Caikit()
    """For an ingress that speaks `caikit`."""
    openai: OpenAI = OpenAI()
    """For an ingress that speaks `openai`."""
    kserve: KServe = KServe()
    """For an ingress that speaks `kserve`."""
    quotas: Quotas = Quotas()
    """What each caller and model may use."""
    audit: Audit = Audit()
    """Where decisions on requests are written down."""
    num_cpus: float = Field(default=0.5, ge=0)
    """CPU cores reserved for a replica of a separate ingress."""
    docs: bool = True
    """Serve `/docs` and `/openapi.json`."""
    metrics: bool = True
    """Serve this replica's own metrics at `/metrics` (Ray's export has those of all replicas)."""
    access_log: bool = True
    """Write one JSON line a request to the replica's log."""
    deployment: dict[str, Any] = Field(default_factory=dict)
    """Any option of a Serve deployment, under Serve's own name (`num_replicas`,
    `autoscaling_config`, `max_ongoing_requests`, …). Applies to a separate ingress."""

    @field_validator("auth", mode="before")
    @classmethod
    def _checks_something(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("is empty; leave it out where no tokens are to be checked")
        return value

    @field_validator("protocols")
    @classmethod
    def _speaks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("name at least one")
        return value


class App(Settings):
    """What every application that hosts an engine has."""

    topology: Literal["separate", "colocated", "runtime"] = "separate"
    """`separate`: ingress deployment → handle → runtime deployment; for LLMs on GPUs, whose
    ingress scales on CPUs by itself. `colocated`: the engine lives in the ingress replica, no hop;
    for small models on CPU. `runtime`: the runtime deployment alone, without a route, to stand
    behind a gateway."""
    placement: Placement = Placement()
    deployment: dict[str, Any] = Field(default_factory=dict)
    """Any option of the Serve deployment that hosts the engine, under Serve's own name
    (`num_replicas`, `autoscaling_config`, `max_ongoing_requests`, `max_queued_requests`, …)."""
    ingress: Ingress = Ingress()

    @model_validator(mode="after")
    def _checks_tokens_itself(self) -> "App":
        if self.topology == "runtime" and self.ingress.auth is not None:
            raise ValueError(
                "ingress.auth: topology 'runtime' has no ingress; its gateway checks tokens, by an "
                "ingress.auth of its own"
            )
        return self

    @model_validator(mode="after")
    def _one_repository(self) -> "App":
        if self.ingress.kserve.repository_api:
            scaled = self.deployment.get("autoscaling_config")
            if scaled is not None or self.deployment.get("num_replicas", 1) != 1:
                raise ValueError(
                    "ingress.kserve.repository_api: needs exactly one replica, since loading a "
                    "model reaches only one; set deployment.num_replicas to 1 and leave "
                    "autoscaling_config out, or switch it off"
                )
        return self

    def listed_models(self) -> tuple[Model, ...]:
        """Return the models that the settings name; an engine may find more in a directory."""
        return ()

    def made_sources(self) -> tuple[str, ...]:
        """Return the sources that `formats.source` makes into directories before Ray starts."""
        return tuple(model.source for model in self.listed_models() if model.source)


class ModelApp(App):
    """What every application of one model has."""

    model: Model

    def listed_models(self) -> tuple[Model, ...]:
        return (self.model,)


class Gateway(Settings):
    """One ingress in front of several applications of topology `runtime`."""

    models: dict[str, str] = Field(min_length=1)
    """Model name → name of the Serve application that serves it."""
    ingress: Ingress = Ingress()

    @model_validator(mode="after")
    def _no_repository(self) -> "Gateway":
        if self.ingress.kserve.repository_api:
            raise ValueError(
                "ingress.kserve.repository_api: not behind a gateway, which does not know how many "
                "replicas its applications have"
            )
        return self
