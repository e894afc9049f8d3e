"""Stock clients, as they are: caikit-nlp-client and grpcurl."""

import json
import sys
from pathlib import Path

import pytest

from tests.contract.caikit.conftest import MODEL

CLIENT = str(Path(__file__).with_name("client.py"))
SERVICE = "caikit.runtime.Nlp.NlpService"
CANNOT = f"Model '{MODEL}' does not support the task '{{}}'. Its tasks: embedding,"


EMBEDDER = {"tasks": ("embed", "score")}


async def ask(run, *args: str):
    written = await run(sys.executable, CLIENT, *args, MODEL)
    return json.loads(written.splitlines()[-1])


async def test_the_grpc_client_finds_its_messages_and_generates(fake, run):
    server = await fake()
    got = await ask(run, "grpc", *server.target.split(":"))
    parameters = got["parameters"]["result"]
    assert parameters["max_new_tokens"] == "int64"
    assert {"text", "stop_sequences", "seed", "include_stop_sequence"} <= parameters.keys()
    whole = got["generate"]["result"]
    assert len(whole) == 4
    assert "".join(got["stream"]["result"]) == whole


async def test_the_http_client_reads_parameters_and_generates(fake, run):
    server = await fake()
    got = await ask(run, "http", server.url)
    parameters = got["parameters"]["result"]
    assert parameters["max_new_tokens"] == "integer"
    assert parameters["exponential_decay_length_penalty"] == {
        "start_index": "integer",
        "decay_factor": "number",
    }
    assert len(got["generate"]["result"]) == 4
    # It takes six bytes off every line, `event: message` too: so it fails against Caikit itself.
    assert got["stream"]["error"] == "JSONDecodeError"


@pytest.mark.parametrize("transport", ["grpc", "http"])
async def test_a_client_reads_why_a_model_cannot_generate(fake, run, transport):
    server = await fake(**EMBEDDER)
    where = server.target.split(":") if transport == "grpc" else [server.url]
    got = await ask(run, transport, *where)
    assert CANNOT.format("text-generation") in got["generate"]["text"]
    if transport == "grpc":
        assert CANNOT.format("server-streaming-text-generation") in got["stream"]["text"]


async def test_grpcurl_embeds_without_proto_files(fake, grpcurl):
    server = await fake()
    status, written = await grpcurl(
        *("-d", '{"text": "first sentence"}', "-H", f"mm-model-id: {MODEL}"),
        server.target,
        f"{SERVICE}/EmbeddingTaskPredict",
    )
    assert status == 0, written
    answer = json.loads(written)
    assert len(answer["result"]["data_npfloat32sequence"]["values"]) == 8
    assert answer["producer_id"] == {"name": "EmbeddingModule", "version": "0.0.1"}
    assert answer["input_token_count"] == "14"


async def test_grpcurl_lists_what_is_served_and_says_what_is_wrong(fake, grpcurl):
    server = await fake()
    _, listed = await grpcurl(server.target, "list")
    assert {SERVICE, "caikit.runtime.info.InfoService"} <= set(listed.split())
    _, described = await grpcurl(server.target, "describe", "caikit.runtime.Nlp.RerankTaskRequest")
    assert "repeated .google.protobuf.Struct documents = 2" in described
    status, written = await grpcurl(
        "-d", '{"text": "x"}', server.target, f"{SERVICE}/EmbeddingTaskPredict"
    )
    assert status != 0
    assert "Code: InvalidArgument" in written
    assert "Message: Missing required model ID" in written


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_both_versions_of_reflection_know_caikits_services(fake, grpcurl, version):
    server = await fake()
    status, written = await grpcurl(
        *("-d", f'{{"file_containing_symbol": "{SERVICE}"}}'),
        server.target,
        f"grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
    )
    assert status == 0, written
    assert len(json.loads(written)["file_descriptor_response"]["file_descriptor_proto"]) >= 1
