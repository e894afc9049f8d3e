"""Tokens are checked in every topology, on both of Ray's data planes, over HTTP and gRPC."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from rayserve_platform.pb import generation_pb2 as fmaas
from rayserve_platform.pb.generation_pb2_grpc import GenerationServiceStub
from tests.authorities import bearer
from tests.e2e.auth.conftest import ROOT, TOPOLOGIES, make_key

pytestmark = pytest.mark.e2e
INVALID = "The credentials are not valid."
TEXT = fmaas.GenerationRequest(text="hi")
BODY = {"model": "fake", "prompt": "hi", "max_tokens": 2}


@pytest.fixture
def http(platform: Any) -> Any:
    with httpx.Client(base_url=platform.url, trust_env=False, timeout=60) as client:
        yield client


def wait_for(client: Any, path: str, token: str, status: int) -> None:
    """Wait until a key counts, or counts no more: the file is followed."""
    ends = time.monotonic() + 20
    while client.post(path, json=BODY, headers=bearer(token)).status_code != status:
        assert time.monotonic() < ends
        time.sleep(0.1)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_http_is_answered_to_whoever_has_a_key(topology: str, http: Any, keys: Path) -> None:
    path = f"/{topology}/v1/completions"
    token, narrow = make_key(keys), make_key(keys, "--model", "nobody")
    wait_for(http, path, token, 200)
    wait_for(http, path, narrow, 403)
    for headers in ({}, bearer("x"), bearer(token[:-1] + "x"), {"authorization": token}):
        answer = http.post(path, json=BODY, headers=headers)
        assert answer.status_code == 401
        assert 'Bearer realm="own"' in answer.headers["www-authenticate"]
        assert answer.json()["error"]["code"]
    assert http.get(f"/{topology}/health").status_code == 200
    assert http.get(f"/{topology}/v1/models").status_code == 401
    assert http.get(f"/{topology}/metrics").status_code == 401
    key_id = token.split("_")[1]
    revoke = [sys.executable, "-m", "rayserve_platform.cli", "keys", "revoke", key_id]
    subprocess.run([*revoke, "--file", str(keys)], cwd=ROOT, check=True, capture_output=True)
    wait_for(http, path, token, 401)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_grpc_is_answered_to_whoever_has_a_key(
    topology: str, platform: Any, http: Any, keys: Path
) -> None:
    token = make_key(keys)
    wait_for(http, f"/{topology}/v1/completions", token, 200)
    request = fmaas.BatchedGenerationRequest(model_id="fake", requests=[TEXT])
    stream = fmaas.SingleGenerationRequest(model_id="fake", request=TEXT)
    with grpc.insecure_channel(platform.grpc) as channel:
        stub = GenerationServiceStub(channel)
        to_app = [("application", topology)]
        metadata = [*to_app, ("authorization", f"Bearer {token}")]
        assert stub.Generate(request, metadata=metadata, timeout=60).responses[0].text
        assert list(stub.GenerateStream(stream, metadata=metadata, timeout=60))
        for more in ([], [("authorization", "Bearer x")]):
            with pytest.raises(grpc.RpcError) as caught:
                stub.Generate(request, metadata=[*to_app, *more], timeout=60)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            trailing: list[Any] = [*(caught.value.trailing_metadata() or ())]
            assert ("www-authenticate", 'Bearer realm="own"') in trailing
            # Serve 2.60 drops the trailing metadata of a stream that fails.
            with pytest.raises(grpc.RpcError) as caught:
                list(stub.GenerateStream(stream, metadata=[*to_app, *more], timeout=60))
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert caught.value.details() in ("Credentials are required.", INVALID)
