"""grpcurl, with our proto file and by reflection."""

import json

import pytest

PROTO = ("-proto", "protos/generation.proto")
BODY = json.dumps({"requests": [{"text": "At what temperature does liquid Nitrogen boil?"}]})
GENERATE = "fmaas.GenerationService/Generate"


@pytest.mark.parametrize(
    ("proto", "names"),
    [
        (PROTO, ("inputTokenCount", "generatedTokenCount", "stopReason")),
        # What Python's reflection serves has no JSON names.
        ((), ("input_token_count", "generated_token_count", "stop_reason")),
    ],
    ids=["proto file", "reflection"],
)
async def test_a_request_without_parameters_is_answered(serve, grpcurl, proto, names):
    server = await serve()
    status, written = await grpcurl(*proto, "-d", BODY, server.target, GENERATE)
    assert status == 0, written
    [answer] = json.loads(written)["responses"]
    assert answer[names[0]] == 46
    assert 0 < answer[names[1]] <= 20
    assert answer[names[2]] in ("MAX_TOKENS", "EOS_TOKEN")


async def test_a_stream_arrives(serve, grpcurl):
    server = await serve()
    body = '{"request": {"text": "Once"}, "params": {"stopping": {"maxNewTokens": 3}}}'
    method = "fmaas.GenerationService/GenerateStream"
    status, written = await grpcurl(*PROTO, "-d", body, server.target, method)
    assert status == 0, written
    assert written.count("generatedTokenCount") == 3


async def test_mistakes_are_told(serve, grpcurl):
    server = await serve()
    body = '{"requests": [{"text": "x"}], "params": {"stopping": {"maxNewTokens": 2000}}}'
    status, written = await grpcurl(*PROTO, "-d", body, server.target, GENERATE)
    assert status != 0
    assert "InvalidArgument" in written
    assert "max_new_tokens must be <= 1024" in written


async def test_services_are_listed(serve, grpcurl):
    server = await serve()
    status, written = await grpcurl(server.target, "list")
    assert status == 0, written
    assert {"fmaas.GenerationService", "grpc.health.v1.Health"} <= set(written.split())
    status, written = await grpcurl(server.target, "describe", "fmaas.TokenInfo")
    assert status == 0, written
    assert "repeated .fmaas.TokenInfo.TopToken top_tokens = 5;" in written
