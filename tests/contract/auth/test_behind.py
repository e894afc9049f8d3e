"""What engines and callbacks see of a request whose token has been checked."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from rayserve_platform.core.cards import Adapter
from tests.authorities import Issuer, Service, bearer, running
from tests.contract.auth.conftest import policy_of, runtime


class Native:
    """A runtime with an OpenAI server of its own, which tells what reached it."""

    def __init__(self, route: str = "POST /v1/completions", adapters: tuple[str, ...] = ()) -> None:
        self._fake = runtime("alpha")
        self._changes = {
            "native": frozenset({route}),
            "adapters": tuple(Adapter(name=name, root=name) for name in adapters),
        }
        self.names = ("alpha",)
        self._settings = self._fake._settings
        self.heads: list[dict[str, str]] = []
        self.queries: list[bytes] = []
        self.bodies: list[bytes] = []

    async def describe(self) -> Any:
        cards = await self._fake.describe()
        return tuple(replace(card, **self._changes) for card in cards)

    async def check_health(self) -> None:
        pass

    async def native(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(name.decode(), value.decode()) for name, value in scope["headers"]]
        self.heads.append(dict(headers))
        self.queries.append(scope["query_string"])
        self.bodies.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


async def test_an_engine_sees_no_credentials_and_what_the_policy_adds(
    serve: Any, issuer: Issuer
) -> None:
    success = {"x-user": {"plain": {"selector": "auth.identity.sub"}},
               "x-rayserve-model": {"plain": {"expression": "model.name"}}}  # fmt: skip
    engine = Native()
    policy = policy_of(issuer, response={"success": {"headers": success}})
    policy["authentication"]["key"] = {
        "apiKey": {"selector": {"matchLabels": {"a": "b"}}},
        "credentials": {"queryString": {"name": "api_key"}},
    }
    server = await serve("openai", engine, policy=policy)
    forged = {
        "x-user": "mallory",
        "X-Rayserve-Model": "other",
        "x_rayserve_user": "mallory",
        "x-maas-group": "admins",
        "X-Forwarded-Client-Cert": "Hash=x",
        "cookie": "session=s",
        "x-custom": "kept",
    }
    answer = await server.http.post(
        "/v1/completions?api_key=k&x=1",
        json={"prompt": "x"},
        headers={**bearer(issuer.token(models=["alpha"])), **forged},
    )
    assert answer.status_code == 200
    [head] = engine.heads
    assert (head["x-user"], head["x-rayserve-model"], head["x-custom"]) == (
        "alice",
        "alpha",
        "kept",
    )
    for name in ("authorization", "cookie", "x_rayserve_user", "x-maas-group"):
        assert name not in head
    assert "x-forwarded-client-cert" not in head
    assert engine.queries == [b"x=1"]


NAMED = [(["alpha"], 404), (["alpha", "sql"], 404), (["law"], 200)]
UNNAMED = [
    (["alpha"], 404),
    (["alpha", "sql"], 400),
    (["sql", "law"], 400),
    (["alpha", "sql", "law"], 200),
]


@pytest.mark.parametrize(
    ("query", "data", "cases"),
    [("", {"model": "law"}, NAMED), ("?model=sql", {}, UNNAMED)],
    ids=["the one that it names", "all where it names none"],
)
async def test_a_form_is_for_whoever_may_use_the_adapter(
    serve: Any, issuer: Issuer, query: str, data: Any, cases: Any
) -> None:
    engine = Native("POST /v1/audio/transcriptions", adapters=("sql", "law"))
    server = await serve("openai", engine)
    for models, status in cases:
        answer = await server.http.post(
            f"/v1/audio/transcriptions{query}",
            files={"file": b"RIFF"},
            data=data,
            headers=bearer(issuer.token(models=models)),
        )
        assert answer.status_code == status
    assert len(engine.heads) == 1


async def test_an_engine_reads_the_adapter_that_was_decided_upon(
    serve: Any, issuer: Issuer
) -> None:
    engine = Native(adapters=("sql",))
    server = await serve("openai", engine)
    only = bearer(issuer.token(models=["sql"]))
    for query, body in (("?model=sql", {"prompt": "x"}), ("", {"prompt": "x", "model": "sql"})):
        answer = await server.http.post(f"/v1/completions{query}", json=body, headers=only)
        assert answer.status_code == 200
    assert [orjson.loads(body)["model"] for body in engine.bodies] == ["sql", "sql"]
    for model in (None, "alpha"):
        answer = await server.http.post(
            "/v1/completions?model=sql", json={"prompt": "x", "model": model}, headers=only
        )
        assert answer.status_code in (403, 404)
    assert len(engine.bodies) == 2


async def test_a_body_of_two_kinds_is_refused(serve: Any, issuer: Issuer) -> None:
    engine = Native(adapters=("sql",))
    server = await serve("openai", engine)
    kinds = ("application/json", "multipart/form-data; boundary=x")
    for first, last in (kinds, kinds[::-1]):
        headers = [
            ("authorization", f"Bearer {issuer.token(models=['alpha', 'sql'])}"),
            ("content-type", first),
            ("content-type", last),
        ]
        answer = await server.http.post(
            "/v1/completions?model=sql", content=b'{"model": "alpha"}', headers=headers
        )
        assert answer.status_code == 400
    assert not engine.bodies


async def test_internal_headers_end_at_the_edge_without_token_checks_as_well(
    serve_http: Any,
) -> None:
    engine = Native()
    server = await serve_http(engine)
    headers = {"x_rayserve_user": "mallory", "authorization": "Bearer for-the-engine"}
    await server.client.post("/v1/completions", json={"prompt": "x"}, headers=headers)
    assert "x_rayserve_user" not in engine.heads[0]


async def test_every_decision_is_told_to_the_policys_callbacks(
    serve: Any, issuer: Issuer, eventually: Callable[..., Any]
) -> None:
    async with running(Service()) as service:
        told = {
            "url": service.url,
            "method": "POST",
            "contentType": "application/json",
            "bodyParameters": {
                "who": {"selector": "auth.identity.sub"},
                "path": {"expression": "request.path"},
            },
        }
        policy = policy_of(issuer, callbacks={"log": {"http": told}})
        server = await serve("openai", policy=policy)
        await server.http.get("/v1/models")
        await server.http.get("/v1/models", headers=bearer(issuer.token(models=["alpha"])))
        await server.http.get("/health")
        await eventually(lambda: len(service.received) == 2)
        bodies = [orjson.loads(one["body"]) for one in service.received]
        assert bodies == [
            {"who": None, "path": "/v1/models"},
            {"who": "alice", "path": "/v1/models"},
        ]
        service.fault = 500
        answer = await server.http.get("/v1/models", headers=bearer(issuer.token(models=["alpha"])))
        assert answer.status_code == 200, "what others make of a decision does not change it"
