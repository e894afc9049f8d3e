"""An ingress with API keys and quotas, over HTTP and gRPC on real sockets.

It speaks every protocol and serves two fake models: `alpha` writes text and embeds, `beta` takes
tensors. Alice and Bob each have a key.
"""

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.edge.accounts import open_accounts
from rayserve_platform.edge.auth.opening import open_gate
from rayserve_platform.edge.http import HttpEdge
from rayserve_platform.edge.keys.change import create
from rayserve_platform.edge.keys.file import KeysInFile
from rayserve_platform.edge.limits import Admission
from rayserve_platform.pb.caikit_nlp_service_pb2_grpc import add_NlpServiceServicer_to_server
from rayserve_platform.pb.generation_pb2_grpc import add_GenerationServiceServicer_to_server
from rayserve_platform.pb.kserve_inference_pb2_grpc import (
    add_GRPCInferenceServiceServicer_to_server,
)
from rayserve_platform.serving.faces import http_protocols
from rayserve_platform.settings.app import Ingress
from tests.conftest import CancelledByClient, fake_runtime, listening
from tests.rpc import listening_rpc

ADD = (
    add_NlpServiceServicer_to_server,
    add_GenerationServiceServicer_to_server,
    add_GRPCInferenceServiceServicer_to_server,
)


@dataclass(frozen=True, kw_only=True)
class Limited:
    """A server with quotas; `audit` returns the lines of its audit log."""

    http: httpx.AsyncClient
    channel: grpc.aio.Channel
    keys: dict[str, str]
    alpha: Any
    beta: Any
    audit: Callable[[], list[dict[str, Any]]]

    def as_(self, name: str) -> dict[str, str]:
        """The headers of a principal's requests."""
        return {"authorization": f"Bearer {self.keys[name]}"}

    @property
    def asked(self) -> int:
        """How many requests the engines were asked."""
        return len(self.alpha.seen) + len(self.beta.seen)


def _made_keys(path: Path) -> dict[str, str]:
    def add(name: str) -> str:
        token: str = KeysInFile(path).update(
            lambda file, pepper: create(
                file, pepper(), now=datetime.now(UTC), principal=name, groups=(f"{name}s",)
            )[::2]
        )
        return token

    return {name: add(name) for name in ("alice", "bob")}


@contextlib.asynccontextmanager
async def limited(
    folder: Path, rules: list[dict[str, Any]], *, engine: dict[str, Any], ingress: dict[str, Any]
) -> AsyncIterator[Limited]:
    keys = _made_keys(folder / "keys.json")
    settings = Ingress.model_validate(
        {
            "protocols": ["openai", "caikit", "tgis", "kserve"],
            "auth": {"keys": {"file": str(folder / "keys.json")}},
            "quotas": {"rules": [{"name": "all", **rule} for rule in rules]},
            "audit": {"file": str(folder / "audit.jsonl")},
            **ingress,
        }
    )
    assert settings.auth is not None
    alpha = fake_runtime(id="alpha", **engine)
    beta = fake_runtime(
        id="beta", tasks=("infer",), inputs={"x": {"shape": [-1], "datatype": "FP32"}}
    )
    catalog = Catalog([alpha, beta], guarded=True)
    gate = open_gate(settings.auth, catalog.targets)
    accounts = open_accounts(settings)
    admission = Admission(settings.limits)
    faces = http_protocols(settings, catalog, engine_elsewhere=True)
    edge = HttpEdge(faces, settings, admission, gate=gate, accounts=accounts)
    async with contextlib.AsyncExitStack() as stack:
        await gate.guard.start()
        stack.push_async_callback(gate.guard.stop)
        stack.push_async_callback(accounts.close)
        url = await stack.enter_async_context(listening(CancelledByClient(edge)))
        target = await stack.enter_async_context(
            listening_rpc(catalog, settings, ADD, admission, gate=gate, accounts=accounts)
        )
        http = httpx.AsyncClient(base_url=url, timeout=60, verify=False, trust_env=False)
        await stack.enter_async_context(http)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(target))

        def audit() -> list[dict[str, Any]]:
            text = (folder / "audit.jsonl").read_text()
            return [json.loads(line) for line in text.splitlines()]

        yield Limited(http=http, channel=channel, keys=keys, alpha=alpha, beta=beta, audit=audit)


Serve = Callable[..., Awaitable[Limited]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Serves with quotas: `rules`; the engine's settings; and by name more of the ingress's."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            *rules: dict[str, Any], engine: dict[str, Any] | None = None, **ingress: Any
        ) -> Limited:
            running = limited(tmp_path, list(rules), engine=engine or {}, ingress=ingress)
            return await stack.enter_async_context(running)

        yield start
