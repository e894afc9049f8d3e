"""An ingress whose tokens are checked, over HTTP and gRPC on real sockets.

It serves the models `alpha` and `beta`. A token says in `models` which of them its owner may call.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import pytest

from rayserve_platform.core.cards import ModelCard
from rayserve_platform.core.catalog import Catalog
from rayserve_platform.edge.auth.opening import open_gate
from rayserve_platform.edge.http import HttpEdge
from rayserve_platform.edge.limits import Admission
from rayserve_platform.pb.caikit_info_service_pb2_grpc import add_InfoServiceServicer_to_server
from rayserve_platform.pb.caikit_nlp_service_pb2_grpc import add_NlpServiceServicer_to_server
from rayserve_platform.pb.generation_pb2_grpc import add_GenerationServiceServicer_to_server
from rayserve_platform.pb.kserve_inference_pb2_grpc import (
    add_GRPCInferenceServiceServicer_to_server,
)
from rayserve_platform.serving.faces import http_protocols
from rayserve_platform.settings.app import Ingress
from tests.authorities import Issuer, running
from tests.conftest import CancelledByClient, fake_runtime, listening
from tests.rpc import listening_rpc

ADD = (
    add_NlpServiceServicer_to_server,
    add_InfoServiceServicer_to_server,
    add_GenerationServiceServicer_to_server,
    add_GRPCInferenceServiceServicer_to_server,
)


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """A server whose tokens are checked."""

    http: httpx.AsyncClient
    channel: grpc.aio.Channel
    target: str
    runtimes: dict[str, Any]
    edge: HttpEdge


def policy_of(issuer: Issuer, **more: Any) -> dict[str, Any]:
    """Return the policy: the token's own list of models decides."""
    jwt = {"issuerUrl": issuer.url, "audiences": ["rayserve"], "algorithms": ["ES256"]}
    name = "model.adapter == '' ? model.name : model.adapter"
    allowed = {"predicate": f"({name}) in auth.identity.models"}
    return {
        "authentication": {"oidc": {"jwt": jwt}},
        "authorization": {"models": {"patternMatching": {"patterns": [allowed]}}},
        **more,
    }


def runtime(name: str, **engine: Any) -> Any:
    inputs = {"x": {"shape": [-1], "datatype": "FP32"}}
    tasks = ("generate", "embed", "score")
    return fake_runtime(id=name, **{"tasks": tasks, "inputs": inputs, **engine})


class Repository:
    """A runtime of several models that can be loaded and unloaded."""

    def __init__(self, *names: str) -> None:
        self._models = [runtime(name) for name in names]
        self.names = names
        self.seen: list[str] = []

    async def describe(self) -> tuple[ModelCard, ...]:
        return tuple([card for model in self._models for card in await model.describe()])

    async def check_health(self) -> None:
        pass

    async def load_model(self, name: str, parameters: Any) -> None:
        self.seen.append(name)

    async def unload_model(self, name: str) -> None:
        self.seen.append(name)


@contextlib.asynccontextmanager
async def guarded(
    policy: Any, protocol: str, *runtimes: Any, auth: Any = None, **ingress: Any
) -> AsyncIterator[Guarded]:
    """Serve the two models, or other runtimes, through one protocol.

    Whoever may call one may load it as well, unless `auth` says otherwise.
    """
    served = runtimes or (runtime("alpha"), runtime("beta"))
    settings = Ingress.model_validate(
        {
            "protocols": [protocol],
            "auth": {"policy": policy, "load": [{"predicate": "true"}], **(auth or {})},
            "kserve": {"repository_api": True},
            **ingress,
        }
    )
    assert settings.auth is not None
    salted = settings.cache_salt == "principal"
    catalog = Catalog(served, guarded=True, load_wait_s=2, salted=salted)
    gate = open_gate(settings.auth, catalog.targets)
    admission = Admission(settings.limits)
    faces = http_protocols(settings, catalog, engine_elsewhere=True)
    edge = HttpEdge(faces, settings, admission, gate=gate)
    async with contextlib.AsyncExitStack() as stack:
        await gate.guard.start()
        stack.push_async_callback(gate.guard.stop)
        url = await stack.enter_async_context(listening(CancelledByClient(edge)))
        target = await stack.enter_async_context(
            listening_rpc(catalog, settings, ADD, admission, gate=gate)
        )
        http = httpx.AsyncClient(base_url=url, timeout=60, verify=False, trust_env=False)
        await stack.enter_async_context(http)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(target))
        found = {name: one for one in served for name in names_of(one)}
        yield Guarded(http=http, channel=channel, target=target, runtimes=found, edge=edge)


def names_of(served: Any) -> tuple[str, ...]:
    if isinstance(served, tuple):
        return served[:1]
    return served.names if hasattr(served, "names") else (served._settings.model.id,)


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with running(Issuer("EC")) as found:
        yield found


@pytest.fixture
async def serve(issuer: Issuer) -> AsyncIterator[Callable[..., Awaitable[Guarded]]]:
    """Serves the models, or those given, through a protocol; by a policy of its own if given."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(protocol: str, *runtimes: Any, policy: Any = None, **more: Any) -> Guarded:
            policy = policy or policy_of(issuer)
            return await stack.enter_async_context(guarded(policy, protocol, *runtimes, **more))

        yield start


@pytest.fixture
def tokens(issuer: Issuer) -> Callable[[], dict[str, str]]:
    """Makes the tokens of the matrix, by what is right or wrong with them."""

    def make() -> dict[str, str]:
        both = ["alpha", "beta"]
        forged = Issuer("EC")
        forged.url = issuer.url
        return {
            "bad": "not-a-token",
            "forged": forged.token(models=both),
            "expired": issuer.token(models=both, exp=1_700_000_000),
            "wrong audience": issuer.token(models=both, aud="another"),
            "nothing": issuer.token(models=[]),
            "other model": issuer.token(models=["beta"]),
            "right": issuer.token(models=["alpha"]),
        }

    return make
