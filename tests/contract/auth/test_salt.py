"""What an engine remembers of one caller's prompts is used for no other caller."""

from typing import Any

import pytest

from rayserve_platform.core.principal import Principal
from rayserve_platform.core.salted import Salt
from rayserve_platform.pb.generation_pb2 import BatchedGenerationRequest, GenerationRequest
from rayserve_platform.pb.generation_pb2_grpc import GenerationServiceStub
from rayserve_platform.settings.app import Model
from rayserve_platform.settings.fake import FakeApp
from tests.authorities import Issuer
from tests.unit.protocols.conftest import ScriptedNative

HI = [{"role": "user", "content": "hi"}]
TEXTS = {
    "caikit": ("/api/v1/task/text-generation", {"model_id": "alpha", "inputs": "hi"}),
    "caikit embedding": ("/api/v1/task/embedding", {"model_id": "alpha", "inputs": "hi"}),
    "kserve": ("/v2/models/alpha/generate", {"text_input": "hi"}),
    "openai": ("/v1/completions", {"model": "alpha", "prompt": "hi"}),
    "openai embedding": ("/v1/embeddings", {"model": "alpha", "input": "hi"}),
}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HI},
    "/v1/completions": {"prompt": "hi"},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"messages": HI, "max_tokens": 1},
    "/v1/embeddings": {"input": "hi"},
    "/v1/score": {"text_1": "a", "text_2": "b"},
    "/rerank": {"query": "a", "documents": ["b"]},
}


def header(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def token_of(issuer: Issuer, name: str) -> str:
    return issuer.token(sub=name, models=["alpha"])


@pytest.mark.parametrize("kind", TEXTS)
async def test_each_caller_has_a_salt_of_its_own(serve: Any, issuer: Issuer, kind: str) -> None:
    server = await serve(kind.partition(" ")[0])
    path, body = TEXTS[kind]
    for name in ("alice", "alice", "bob"):
        answer = await server.http.post(path, json=body, headers=header(token_of(issuer, name)))
        assert answer.status_code == 200, answer.text
    first, again, other = [seen.cache_salt for seen in server.runtimes["alpha"].seen]
    assert first == again
    assert len({first, other, None}) == 3


async def test_each_caller_has_a_salt_of_its_own_over_grpc(serve: Any, issuer: Issuer) -> None:
    server = await serve("tgis")
    stub = GenerationServiceStub(server.channel)
    request = BatchedGenerationRequest(model_id="alpha", requests=[GenerationRequest(text="hi")])
    for name in ("alice", "alice", "bob"):
        metadata = [("authorization", f"Bearer {token_of(issuer, name)}")]
        await stub.Generate(request, metadata=metadata)
    first, again, other = [seen.cache_salt for seen in server.runtimes["alpha"].seen]
    assert first == again
    assert len({first, other, None}) == 3


@pytest.fixture
def native() -> ScriptedNative:
    """A runtime with a server of its own, which reads bodies by itself."""
    runtime = ScriptedNative(FakeApp(model=Model(id="alpha")))
    runtime.routes = frozenset(f"POST {path}" for path in (*BODIES, "/tokenize"))
    return runtime


@pytest.mark.parametrize("path", BODIES)
async def test_a_body_for_an_engines_own_server_has_the_salt(
    serve: Any, issuer: Issuer, native: ScriptedNative, path: str
) -> None:
    server = await serve("openai", native)
    body = {"model": "alpha", **BODIES[path]}
    for name in ("alice", "bob"):
        answer = await server.http.post(path, json=body, headers=header(token_of(issuer, name)))
        assert answer.status_code == 200, answer.text
    first, other = [call.json for call in native.calls]
    assert len({first.pop("cache_salt"), other.pop("cache_salt"), None}) == 3
    for one in (first, other):
        one.pop("request_id", None)  # its own for each response that is stored
    assert first == other == body


async def test_a_callers_own_salt_never_becomes_anothers(
    serve: Any, issuer: Issuer, native: ScriptedNative
) -> None:
    server = await serve("openai", native)
    body = {"model": "alpha", "messages": HI}

    async def salt(name: str, own: str | None = None) -> str:
        sent = body if own is None else {**body, "cache_salt": own}
        answer = await server.http.post(
            "/v1/chat/completions", json=sent, headers=header(token_of(issuer, name))
        )
        assert answer.status_code == 200, answer.text
        found: str = native.calls[-1].json["cache_salt"]
        return found

    alice = await salt("alice")
    salts = [alice, await salt("alice", "x"), await salt("bob"), await salt("bob", "x")]
    salts += [await salt("bob", alice), await salt("bob", "y")]
    assert len(set(salts)) == len(salts)
    assert await salt("bob", "x") == salts[3]
    # As vLLM takes it: 128 characters at most, none of them '@', '/', a backslash or NUL.
    assert all(found.isalnum() and len(found) <= 128 for found in salts)


@pytest.mark.parametrize("own", ["", 1, ["a"], {"a": 1}])
async def test_a_salt_that_is_none_is_refused(
    serve: Any, issuer: Issuer, native: ScriptedNative, own: Any
) -> None:
    server = await serve("openai", native)
    body = {"model": "alpha", "messages": HI, "cache_salt": own}
    token = header(token_of(issuer, "alice"))
    answer = await server.http.post("/v1/chat/completions", json=body, headers=token)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "cache_salt"
    assert native.calls == []


async def test_it_can_be_switched_off(serve: Any, issuer: Issuer, native: ScriptedNative) -> None:
    token = header(token_of(issuer, "alice"))
    shared = await serve("openai", native, cache_salt="off")
    body = {"model": "alpha", "messages": HI, "cache_salt": "x"}
    await shared.http.post("/v1/chat/completions", json=body, headers=token)
    assert native.calls[-1].json == body
    path, text = TEXTS["caikit"]
    other = await serve("caikit", cache_salt="off")
    await other.http.post(path, json=text, headers=token)
    assert other.runtimes["alpha"].seen[-1].cache_salt is None


async def test_without_tokens_there_is_no_salt(serve_http: Any, native: ScriptedNative) -> None:
    server = await serve_http(native)
    body = {"model": "alpha", "messages": HI}
    assert (await server.client.post("/v1/chat/completions", json=body)).status_code == 200
    assert native.calls[-1].json == body


async def test_where_no_model_reads_a_prompt_nothing_is_added(
    serve: Any, issuer: Issuer, native: ScriptedNative
) -> None:
    server = await serve("openai", native)
    body = {"model": "alpha", "prompt": "hi"}
    token = header(token_of(issuer, "alice"))
    assert (await server.http.post("/tokenize", json=body, headers=token)).status_code == 200
    assert native.calls[-1].json == body


def test_no_two_names_are_written_alike() -> None:
    names = [("a", "b"), ('a", "b', ""), ("", "ab"), ("ab", ""), ("b", "a"), ("a", "b\n")]
    salts = {Salt(Principal(rule=rule, id=name)).mixed() for rule, name in names}
    assert len(salts) == len(names)
