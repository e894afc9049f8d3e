"""Every route and RPC of every protocol with every kind of token, on both of Ray's data planes.

The samples are those of the contract tests, which say more about each answer; here it is told that
no way through Serve leads past the checks.
"""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any, NamedTuple

import grpc
import httpx
import pytest

from tests.authorities import Issuer
from tests.contract.auth import test_matrix_http as routes
from tests.contract.auth import test_matrix_rpc as rpcs
from tests.e2e.auth.conftest import PROTOCOLS, TOPOLOGIES, Authorities

pytestmark = pytest.mark.e2e
AT_A_TIME = 16
MODEL, OTHER, NONE = "fake", "other", "nobody"
ROUTES = [
    *((protocol, key) for protocol, samples in routes.SAMPLES.items() for key in samples),
    *(("openai", key) for key in routes.COMMON),
]
RPCS = list({path: (protocol, path) for protocol, path in rpcs.CASES}.values())
NOWHERE = {"GET /unknown", "POST /v1/unknown", "POST /v1/models/{model}:predict"}
"""Paths that nothing answers, or that are taken for another: OpenAI's face comes first."""
OFF = "switched off"
"""What a gateway's ingress says of the repository of models, which it never has, to whoever may."""
ABORTED = "Internal error from Core"
"""What the client makes of a stream that is refused while it writes the first message."""
REACHED = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED}


class Way(NamedTuple):
    """A way to a model: an application, what reaches it, and the tokens by what is wrong."""

    topology: str
    client: Any
    tokens: dict[str, str | None]


@pytest.fixture(params=["colocated", "gateway"])
def topology(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def tokens(authorities: Authorities) -> dict[str, str | None]:
    issuer, forger = authorities.issuer, Issuer("EC")
    forger.url = issuer.url
    forger.rotate(issuer.signs_with, kind="EC")
    both: dict[str, Any] = {"username": "alice", "models": [MODEL, OTHER]}
    return {
        "none": None,
        "bad": "not-a-token",
        "forged": forger.token(**both),
        "expired": issuer.token(**both, exp=1_700_000_000),
        "wrong audience": issuer.token(**both, aud="another"),
        "wrong model": issuer.token(username="alice", models=[OTHER]),
        "right": issuer.token(username="alice", models=[MODEL]),
    }


async def problems(asking: Iterable[Awaitable[str]]) -> list[str]:
    """Return what is wrong with the answers; several are asked for at a time."""
    places = asyncio.Semaphore(AT_A_TIME)

    async def one(answer: Awaitable[str]) -> str:
        async with places:
            return await answer

    return [wrong for wrong in await asyncio.gather(*map(one, asking)) if wrong]


async def test_no_route_is_answered_without_a_token_for_it(
    topology: str, platform: Any, tokens: dict[str, str | None]
) -> None:
    base = f"{platform.url}/{topology}"
    async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=60) as client:
        way = Way(topology, client, tokens)
        document = await routes.ask(client, "openai", "GET /openapi.json", MODEL, tokens["right"])
        published = {
            f"{method.upper()} {path}"
            for path, operations in document.json()["paths"].items()
            for method in operations
        }
        assert len(published) > 5
        assert published <= set(routes.SAMPLES[PROTOCOLS[topology][0]])
        asking = (answered(way, *route, kind) for route in ROUTES for kind in tokens)
        assert await problems(asking) == []


async def answered(way: Way, protocol: str, key: str, kind: str) -> str:
    """Ask for a route; returns what is wrong with the answer."""
    answer = await routes.ask(way.client, protocol, key, MODEL, way.tokens[kind])
    status = answer.status_code
    if key in routes.PROBES:
        is_right = status == 200
    elif kind == "right":
        is_right = status not in (401, 403) and (status < 500 or status == 501)
        is_right |= status == 403 and OFF in answer.text
    elif kind == "wrong model":
        is_right = await hides(way, protocol, key, answer)
    else:
        challenge = answer.headers.get("www-authenticate", "")
        is_right = status == 401 and 'Bearer realm="oidc"' in challenge
    return "" if is_right else f"{key}, {kind}: {status} {answer.text[:200]}"


async def hides(way: Way, protocol: str, key: str, answer: httpx.Response) -> bool:
    """Say whether an answer to one who may call another model is as if this one did not exist."""
    if way.topology == "colocated":  # there is no other; what no face here has is not there
        return answer.status_code in ({404, 405} if key in NOWHERE else {403})
    if "{model}" not in key and routes.MODEL not in str(routes.SAMPLES[protocol].get(key)):
        # The names in the metrics are known to whoever may read those.
        return answer.status_code < 500 and (key == "GET /metrics" or MODEL not in answer.text)
    other = await routes.ask(way.client, protocol, key, NONE, way.tokens["wrong model"])
    same = routes.same(answer.text, MODEL) == routes.same(other.text, NONE)
    return same and answer.status_code == other.status_code


async def test_no_rpc_is_answered_without_a_token_for_it(
    topology: str, platform: Any, tokens: dict[str, str | None]
) -> None:
    async with grpc.aio.insecure_channel(platform.grpc) as channel:
        way = Way(topology, channel, tokens)
        named = await rpcs.reflected(channel, str(tokens["right"]), topology)
        assert named - rpcs.BY_SERVE == {path for _, path in RPCS}
        asking = (called(way, *rpc, kind) for rpc in RPCS for kind in tokens)
        assert await problems(asking) == []


async def called(way: Way, protocol: str, path: str, kind: str) -> str:
    """Call an RPC; returns what is wrong with the answer."""
    answer = await outcome(way, protocol, path, MODEL, kind)
    if path in rpcs.PROBES:
        is_right = answer.code is grpc.StatusCode.OK
    elif kind == "right":
        is_right = answer.code in REACHED or OFF in answer.details
    elif kind == "wrong model":
        is_right = await conceals(way, protocol, path, answer)
    else:
        is_right = answer.code is grpc.StatusCode.UNAUTHENTICATED
    return "" if is_right else f"{path}, {kind}: {answer}"


async def outcome(way: Way, protocol: str, path: str, model: str, kind: str) -> rpcs.Answered:
    """Call an RPC until the client tells how it went."""
    while True:
        token, app = way.tokens[kind], way.topology
        answer = await rpcs.ask(way.client, protocol, path, model, token, app=app)
        if answer.details != ABORTED:
            return answer


async def conceals(way: Way, protocol: str, path: str, answer: rpcs.Answered) -> bool:
    """As `hides`."""
    if way.topology == "colocated":
        return answer.code is grpc.StatusCode.PERMISSION_DENIED
    if not {**rpcs.SAMPLES[protocol], **rpcs.COMMON}[path][1]:
        return MODEL not in str(answer.message)
    other = await outcome(way, protocol, path, NONE, "wrong model")
    return shown(answer, MODEL) == shown(other, NONE)


def shown(answer: rpcs.Answered, model: str) -> tuple[grpc.StatusCode, str, str]:
    """Return an answer without the model's name."""
    told = str(answer.message).replace(model, "@")
    return answer.code, answer.details.replace(model, "@"), told


async def test_a_key_that_the_issuer_took_back_counts_no_more(
    platform: Any, authorities: Authorities
) -> None:
    issuer = authorities.issuer
    claims: dict[str, Any] = {"username": "alice", "models": [MODEL]}
    old = issuer.token(**claims)
    async with httpx.AsyncClient(base_url=platform.url, trust_env=False, timeout=60) as client:

        async def status_of(topology: str, token: str) -> int:
            headers = {"authorization": f"Bearer {token}"}
            return (await client.get(f"/{topology}/v1/models", headers=headers)).status_code

        for topology in TOPOLOGIES:
            assert await status_of(topology, old) == 200
        issuer.rotate(platform.grpc, kind="EC")
        new = issuer.token(**claims)
        for topology in TOPOLOGIES:
            assert await status_of(topology, new) == 200
            assert await status_of(topology, old) == 401
