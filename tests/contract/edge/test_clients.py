"""Stock clients through TLS on one port, with a token: openai, tritonclient, caikit-nlp-client."""

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.authorities import Issuer, running
from tests.contract.auth.conftest import guarded, policy_of, runtime

CLIENT = Path(__file__).with_name("client.py")
PROTOCOLS = ["openai", "caikit", "kserve", "tgis"]
REQUIRED = "The credentials are not valid."


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with running(Issuer("EC")) as found:
        yield found


async def test_stock_clients_are_answered_with_a_token_and_only_then(
    front: Any, run: Any, issuer: Issuer, certificates: Any
) -> None:
    models = (runtime("alpha", tasks=("generate",)), runtime("beta", tasks=("generate",)))
    async with guarded(policy_of(issuer), "openai", *models, protocols=PROTOCOLS) as behind:
        edge = await front(str(behind.http.base_url).removeprefix("http://"), behind.target)

        token = issuer.token(models=["alpha"])
        asked = f"{token} alpha wrong alpha {token} beta"
        line = f"{sys.executable} {CLIENT} {edge.port} {certificates.authority} {asked}"
        status, written = await run(line)
        assert status == 0, written
        answered, refused, hidden = json.loads(written.splitlines()[-1])
        check_answered(answered)
        check_refused(refused)
        check_hidden(hidden)
        assert models[1].seen == []


def check_answered(got: Any) -> None:
    for client, calls in got.items():
        assert calls["whole"], client
        if "stream" in calls:  # of tritonclient's the first message
            assert calls["stream"], client
            assert calls["whole"].startswith(calls["stream"]), client
    assert got["by_openai"]["models"] == ["alpha"]
    for triton in ("by_triton_over_http", "by_triton_over_grpc"):
        assert got[triton]["metadata"] == "alpha"
        assert got[triton]["live"] is True
    assert got["by_triton_over_http"]["ready"] is True


def check_refused(got: Any) -> None:
    for call in got["by_openai"].values():
        assert call["error"] == "AuthenticationError"
        assert REQUIRED in call["text"]
    for triton, status in (("by_triton_over_http", "401"), ("by_triton_over_grpc", "UNAUTH")):
        stream = got[triton].get("stream")
        assert got[triton].pop("live") is True
        assert got[triton].pop("ready", False) is False
        for call in got[triton].values():
            assert call["error"] == "InferenceServerException"
            # HAProxy may reset a stream that was refused before the client has read why.
            assert status in call["text"] or (call is stream and "RST_STREAM" in call["text"])
    assert REQUIRED in json.dumps(got["by_caikit"])


def check_hidden(got: Any) -> None:
    """What may not be called is not there."""
    assert got["by_openai"]["whole"]["error"] == "NotFoundError"
    assert got["by_openai"]["models"] == ["alpha"]
    for triton in ("by_triton_over_http", "by_triton_over_grpc"):
        assert "does not exist" in got[triton]["whole"]["text"]
    assert got["by_caikit"]["whole"]["text"] == "Model 'beta' not loaded"
