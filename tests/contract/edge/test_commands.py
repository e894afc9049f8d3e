"""The command lines of OpenShift AI's documentation, through TLS on one port, with a token.

`-insecure` of grpcurl stands in them; curl trusts the tests' authority. The model's names and the
token are put in, and grpcurl's flags stand before the address, where it wants them.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.authorities import Issuer, running
from tests.contract.auth.conftest import guarded, policy_of, runtime

TOKEN = "-H 'Authorization: Bearer <token>'"
LINES = {
    "caikit stream": (
        "caikit",
        """curl --json '{"model_id": "alpha", "inputs": "hi"}' """
        "https://<host>:443/api/v1/task/server-streaming-text-generation " + TOKEN,
        '"generated_text"',
    ),
    "caikit embedding": (
        "caikit",
        """curl -H 'Content-Type: application/json' -d '{"inputs": "hi", "model_id": "alpha"}' """
        "https://<host>:443/api/v1/task/embedding " + TOKEN,
        '"values"',
    ),
    "caikit gRPC": (
        "caikit",
        """grpcurl -insecure -d '{"text": "hi"}' -H "mm-model-id: alpha" """
        + TOKEN
        + " <host>:443 caikit.runtime.Nlp.NlpService/EmbeddingTaskPredict",
        '"values"',
    ),
    "caikit models": (
        "caikit",
        f"grpcurl -insecure {TOKEN} <host>:443 caikit.runtime.info.InfoService/GetModelsInfo",
        '"alpha"',
    ),
    "tgis": (
        "tgis",
        "grpcurl -proto protos/generation.proto "
        """-d '{"model_id": "alpha", "requests": [{"text":"hi"}]}' """
        + TOKEN
        + " -insecure <host>:443 fmaas.GenerationService/Generate",
        '"generatedTokenCount"',
    ),
    "tgis stream": (
        "tgis",
        "grpcurl -proto protos/generation.proto "
        """-d '{"model_id": "alpha", "request": {"text":"hi"}}' """
        + TOKEN
        + " -insecure <host>:443 fmaas.GenerationService/GenerateStream",
        '"generatedTokenCount"',
    ),
    "kserve": (
        "kserve",
        """curl -ks https://<host>:443/v2/models/alpha/infer -d '{"model_name": "alpha", """
        """"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2]}]}' """
        + TOKEN,
        '"outputs"',
    ),
    "openai": (
        "openai",
        'curl -v https://<host>:443/v1/chat/completions -H "Content-Type: application/json" '
        """-d '{"model": "alpha", "messages": [{"role": "user", "content": "hi"}]}' """ + TOKEN,
        '"chat.completion"',
    ),
    "openai over HTTP/1.1": (
        "openai",
        f"curl --http1.1 -v https://<host>:443/v1/models {TOKEN}",
        '"alpha"',
    ),
}


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with running(Issuer("EC")) as found:
        yield found


@pytest.mark.parametrize("case", LINES)
async def test_a_documented_line_is_answered_with_a_token_and_only_then(front, run, issuer, case):
    protocol, template, wanted = LINES[case]
    engine: dict[str, Any] = {"tasks": ("infer",)} if protocol == "kserve" else {}
    models = (runtime("alpha", **engine), runtime("beta", **engine))
    async with guarded(policy_of(issuer), protocol, *models) as behind:
        edge = await front(str(behind.http.base_url).removeprefix("http://"), behind.target)
        line = template.replace("<host>:443", f"localhost:{edge.port}")
        status, written = await run(line.replace("<token>", issuer.token(models=["alpha"])))
        assert status == 0, written
        assert wanted in written
        for refused in (line.replace(TOKEN, ""), line.replace("<token>", "wrong")):
            status, written = await run(refused)
            assert wanted not in written
            if "grpcurl" in line:
                assert "Code: Unauthenticated" in written
            else:
                assert status == 0
                assert "redentials" in written
        assert models[1].seen == []


async def test_one_model_need_not_be_named(front, run, issuer):
    async with guarded(policy_of(issuer), "openai", runtime("alpha")) as behind:
        edge = await front(str(behind.http.base_url).removeprefix("http://"), behind.target)
        body = json.dumps({"messages": [{"role": "user", "content": "hi"}]})
        token = issuer.token(models=["alpha"])
        status, written = await run(
            f"curl -sS {edge.url}/v1/chat/completions -H 'Content-Type: application/json' "
            f"-d '{body}' -H 'Authorization: Bearer {token}'"
        )
        assert status == 0, written
        assert json.loads(written)["object"] == "chat.completion"


async def test_a_refusal_over_grpc_is_grpc(front, run, issuer):
    async with guarded(policy_of(issuer), "tgis", runtime("alpha")) as behind:
        http = str(behind.http.base_url).removeprefix("http://")
        edge = await front(http, behind.target, max_body_bytes=4096)
        status, written = await run(
            "grpcurl -insecure -proto tests/contract/edge/serve.proto "
            f"localhost:{edge.port} ray.serve.RayServeAPIService/ListApplications"
        )
        assert status != 0
        assert "Code: Unimplemented" in written
        assert "Unknown request URL." in written


async def test_no_server_behind_is_unavailable(front, run):
    nobody = "127.0.0.1:1"
    edge = await front(nobody, nobody)
    answer = await edge.client.get("/v1/models")
    assert answer.status_code in (502, 503)
    assert "The server behind the edge" in answer.json()["error"]["message"]
    status, written = await run(
        f"grpcurl -insecure -proto protos/generation.proto -d '{{}}' localhost:{edge.port} "
        "fmaas.GenerationService/Generate"
    )
    assert status != 0
    assert "Code: Unavailable" in written


async def test_grpc_where_serve_has_none_is_told(front, run, behind):
    edge = await front(behind.address)
    status, written = await run(
        f"grpcurl -insecure -proto protos/generation.proto -d '{{}}' localhost:{edge.port} "
        "fmaas.GenerationService/Generate"
    )
    assert status != 0
    assert "Code: Unimplemented" in written
    assert behind.requests == []


async def test_a_refusal_that_comes_before_the_body_leaves_nothing_to_the_next(front, run, issuer):
    async with guarded(policy_of(issuer), "openai", runtime("alpha")) as behind:
        edge = await front(str(behind.http.base_url).removeprefix("http://"), behind.target)
        line = f"""curl -sS --fail-with-body {edge.url}/v1/completions -d '{{"prompt": "hi"}}'"""
        token = issuer.token(models=["alpha"])
        for _ in range(15):
            status, written = await run(line)
            assert status == 22, written  # curl's for an error of the server's
            assert '"code":401' in written
            status, written = await run(f"{line} -H 'Authorization: Bearer {token}'")
            assert status == 0, written


async def test_a_refusal_is_read_whatever_the_body_is_long(front, run, issuer, tmp_path):
    """curl over HTTP/2 took a refusal before the body's end for a broken stream (error 92)."""
    sent = tmp_path / "body"
    sent.write_bytes(b'{"prompt": "' + b"a" * 300_000 + b'"}')
    async with guarded(policy_of(issuer), "openai", runtime("alpha")) as behind:
        edge = await front(str(behind.http.base_url).removeprefix("http://"), behind.target)
        for _ in range(20):
            line = f"curl -sS {edge.url}/v1/completions --data-binary @{sent} -H expect:"
            status, written = await run(line)
            assert status == 0, written
            assert '"code":401' in written
