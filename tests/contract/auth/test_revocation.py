"""What is taken back while many are asking: whoever had it is served no longer than is promised."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest

from rayserve_platform.edge.keys.change import create
from rayserve_platform.edge.keys.change import revoke as revoked_key
from rayserve_platform.edge.keys.file import KeysInFile
from rayserve_platform.pb import generation_pb2 as fmaas
from rayserve_platform.pb.generation_pb2_grpc import GenerationServiceStub
from tests.authorities import Issuer, running
from tests.contract.auth.conftest import Guarded
from tests.kube import KubeApi

CLIENTS = 10
TTL_S = 1
CACHE = {"key": {"value": "any"}, "ttl": TTL_S}
LABELS = {"app": "llm"}
REFUSED = ("401", "403", "UNAUTHENTICATED", "PERMISSION_DENIED")
BOTH = ["openai", "tgis"]
Revoke = Callable[[], Coroutine[Any, Any, None]]


class Asked(NamedTuple):
    """A request; times are those of a clock that only goes forward."""

    began: float
    ended: float
    outcome: str


async def over_http(server: Guarded, token: str) -> str:
    body = {"model": "alpha", "prompt": "x", "max_tokens": 1}
    headers = {"authorization": f"Bearer {token}"}
    answer = await server.http.post("/v1/completions", json=body, headers=headers)
    return str(answer.status_code).replace("200", "OK")


async def over_grpc(server: Guarded, token: str) -> str:
    batch = fmaas.BatchedGenerationRequest(
        model_id="alpha", requests=[fmaas.GenerationRequest(text="x")]
    )
    metadata = [("authorization", f"Bearer {token}")]
    try:
        await GenerationServiceStub(server.channel).Generate(batch, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


@asynccontextmanager
async def asking(server: Guarded, token: str) -> AsyncIterator[list[Asked]]:
    """Ask all the time over both transports; yields the requests that have been answered."""
    asked: list[Asked] = []

    async def client(ask: Callable[..., Coroutine[Any, Any, str]]) -> None:
        while True:
            began = time.monotonic()
            outcome = await ask(server, token)
            asked.append(Asked(began, time.monotonic(), outcome))

    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(client(ask)) for ask in (over_http, over_grpc) * CLIENTS]
        yield asked
        for one in clients:
            one.cancel()


async def taken_back_under_load(
    server: Guarded, token: str, revoke: Revoke, eventually: Any
) -> tuple[list[Asked], float]:
    """Take back what a token needs while it is used.

    Returns the requests that were served, and when what it needs was gone.
    """

    def last() -> set[str]:
        return {one.outcome for one in asked[-4 * CLIENTS :]}

    async with asking(server, token) as asked:
        await eventually(lambda: len(asked) > 100)
        assert last() == {"OK"}
        await revoke()
        gone = time.monotonic()
        await eventually(lambda: last() <= set(REFUSED))
    refusals = [one.ended for one in asked if one.outcome != "OK"]
    served = [one for one in asked if one.outcome == "OK"]
    assert {one.outcome for one in asked} <= {"OK", *REFUSED}
    # Both transports of a replica know the same: whoever was refused once is refused from then on.
    assert max(one.began for one in served) <= min(refusals)
    return served, gone


def review(kube: KubeApi) -> tuple[Any, Revoke]:
    async def revoke() -> None:
        del kube.users["a-token"]

    kube.account("a-token", "tenant:bot")
    rule = {"kubernetesTokenReview": {"audiences": ["rayserve"]}, "cache": CACHE}
    return {"authentication": {"k": rule}}, revoke


def access(kube: KubeApi) -> tuple[Any, Revoke]:
    async def revoke() -> None:
        kube.grants.clear()

    policy, _ = review(kube)
    kube.grant("system:authenticated", name="alpha")
    asked = {
        "user": {"selector": "auth.identity.username"},
        "resourceAttributes": {"name": {"expression": "model.name"}},
    }
    rbac = {"kubernetesSubjectAccessReview": asked, "cache": CACHE}
    return {**policy, "authorization": {"rbac": rbac}}, revoke


@pytest.mark.parametrize("kind", [review, access])
async def test_no_request_is_served_once_a_verdict_of_the_clusters_has_run_out(
    serve: Any, eventually: Any, kind: Callable[[KubeApi], tuple[Any, Revoke]]
) -> None:
    async with running(KubeApi()) as kube:
        policy, revoke = kind(kube)
        auth = {"kubernetes": {"url": kube.url}}
        server = await serve("openai", policy=policy, auth=auth, protocols=BOTH)
        served, gone = await taken_back_under_load(server, "a-token", revoke, eventually)
    assert max(one.began for one in served) <= gone + TTL_S


async def test_no_request_is_served_once_an_introspection_has_run_out(
    serve: Any, eventually: Any, tmp_path: Path
) -> None:
    (tmp_path / "client").mkdir()
    (tmp_path / "client/clientID").write_text("rayserve")
    (tmp_path / "client/clientSecret").write_text("s")
    async with running(Issuer("EC")) as issuer:
        issuer.opaque["opaque"] = {"active": True, "sub": "alice"}

        async def revoke() -> None:
            issuer.opaque.clear()

        asked = {"endpoint": f"{issuer.url}/introspect", "credentialsRef": {"name": "client"}}
        policy = {"authentication": {"o": {"oauth2Introspection": asked, "cache": CACHE}}}
        auth = {"secrets_dir": str(tmp_path)}
        server = await serve("openai", policy=policy, auth=auth, protocols=BOTH)
        served, gone = await taken_back_under_load(server, "opaque", revoke, eventually)
    assert max(one.began for one in served) <= gone + TTL_S


async def test_a_key_of_a_file_counts_no_more_when_it_is_revoked(
    serve: Any, eventually: Any, tmp_path: Path
) -> None:
    keys = KeysInFile(tmp_path / "keys.json")

    def made(file: Any, pepper: Any) -> Any:
        file, key, token = create(file, pepper(), now=datetime.now(UTC), principal="alice")
        return file, (key.id, token)

    key_id, token = keys.update(made)

    async def revoke() -> None:
        keys.update(lambda file, _: (revoked_key(file, key_id), None))

    policy: dict[str, Any] = {"authentication": {"own": {"apiKey": {}}}}
    auth = {"keys": {"file": str(tmp_path / "keys.json")}}
    server = await serve("openai", policy=policy, auth=auth, protocols=BOTH)
    await taken_back_under_load(server, token, revoke, eventually)


async def test_a_key_of_a_secret_counts_no_more_when_it_is_deleted(
    serve: Any, eventually: Any
) -> None:
    selector = {"matchLabels": LABELS}
    policy: dict[str, Any] = {
        "namespace": "models",
        "authentication": {"k": {"apiKey": {"selector": selector}}},
    }
    async with running(KubeApi()) as kube:
        await kube.put("alice", {"api_key": b"a-key"}, labels=LABELS)
        auth = {"kubernetes": {"url": kube.url}}
        server = await serve("openai", policy=policy, auth=auth, protocols=BOTH)

        async def revoke() -> None:
            await kube.delete("alice")

        await taken_back_under_load(server, "a-key", revoke, eventually)
