"""What the audit log says of requests that are refused."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest

from rayserve_platform.edge.keys.change import create
from rayserve_platform.edge.keys.file import KeysInFile
from rayserve_platform.pb import generation_pb2 as pb
from rayserve_platform.pb.generation_pb2_grpc import GenerationServiceStub

CHAT = {"model": "alpha", "messages": [{"role": "user", "content": "hi"}]}


def add_key(path: Path, **scope: Any) -> str:
    def verb(file: Any, pepper: Any) -> Any:
        return create(file, pepper(), now=datetime.now(UTC), principal="carol", **scope)[::2]

    token: str = KeysInFile(path).update(verb)
    return token


async def test_a_request_with_two_tokens_is_a_refusal(serve: Any) -> None:
    server = await serve({"requests": ["9/day"]})
    headers = [("authorization", "Bearer a"), ("authorization", "Bearer b")]
    answer = await server.http.post("/v1/chat/completions", json=CHAT, headers=headers)
    assert answer.status_code == 400
    call = server.channel.unary_unary("/fmaas.GenerationService/Generate")
    with pytest.raises(grpc.aio.AioRpcError):
        await call(b"", metadata=headers)
    for line in server.audit():
        assert (line["decision"], line["rule"]) == ("deny", "credentials")
    assert len(server.audit()) == 2


async def test_refusals_where_nothing_else_is_written_down_have_a_line(serve: Any) -> None:
    server = await serve({"requests": ["9/day"]}, metrics=True)
    assert (await server.http.get("/metrics")).status_code == 401
    assert (await server.http.get("/metrics", headers=server.as_("alice"))).status_code == 200
    (line,) = server.audit()
    assert (line["decision"], line["code"], line["protocol"]) == ("deny", 401, "metrics")


async def test_a_key_that_is_refused_for_its_scope_is_named_and_so_is_the_model(
    serve: Any, tmp_path: Path, eventually: Any
) -> None:
    wrong_protocol = add_key(tmp_path / "scoped.json", protocols=("tgis",))
    wrong_model = add_key(tmp_path / "scoped.json", models=("beta",))
    server = await serve(
        {"requests": ["9/day"]}, auth={"keys": {"file": str(tmp_path / "scoped.json")}}
    )
    for token in (wrong_protocol, wrong_model):
        headers = {"authorization": f"Bearer {token}"}
        answer = await server.http.post("/v1/chat/completions", json=CHAT, headers=headers)
        assert answer.status_code in (403, 404)
    for line, token in zip(server.audit(), (wrong_protocol, wrong_model), strict=True):
        assert (line["decision"], line["rule"]) == ("deny", "key scope")
        assert (line["principal"], line["key_id"]) == ("carol", token.split("_")[1])
    assert [line["model"] for line in server.audit()] == ["", "alpha"]


async def test_a_call_over_grpc_is_told_the_id_of_its_line(serve: Any) -> None:
    server = await serve({"requests": ["9/day"]})
    stub = GenerationServiceStub(server.channel)
    metadata = [("x-request-id", "mine-1"), *server.as_("alice").items()]
    batch = pb.BatchedGenerationRequest(
        model_id="alpha", requests=[pb.GenerationRequest(text="hi")]
    )
    whole = stub.Generate(batch, metadata=metadata)
    await whole
    single = pb.SingleGenerationRequest(model_id="alpha", request=pb.GenerationRequest(text="hi"))
    stream = stub.GenerateStream(single, metadata=metadata)
    assert [message async for message in stream]
    for call in (whole, stream):
        assert ("x-request-id", "mine-1") in [tuple(one) for one in await call.trailing_metadata()]
    assert [line["request_id"] for line in server.audit()] == ["mine-1", "mine-1"]
