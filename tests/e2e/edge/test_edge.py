"""TLS in front of Serve's own proxies, and what of Ray listens to the network."""

import json
import re
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.caikit.conftest import MODEL

pytestmark = pytest.mark.e2e

LIST = "-proto tests/contract/edge/serve.proto"
SERVES_DOORS = re.compile(r"\S*haproxy |ray::ServeReplica|ray::ProxyActor")
"""The processes whose ports Serve itself opens to the network: see SECURITY.md."""


async def test_https_and_grpc_are_served_on_one_port_to_whoever_has_a_token(
    edge: Any, run: Any, token: str
) -> None:
    body = json.dumps({"inputs": "hi", "model_id": MODEL})
    curl = f"curl -sS {edge.url}/api/v1/task/embedding --json '{body}'"
    grpcurl = (
        f"""grpcurl -insecure -d '{{"text": "hi"}}' -H 'mm-model-id: {MODEL}' %s """
        f"localhost:{edge.port} "
        "caikit.runtime.Nlp.NlpService/EmbeddingTaskPredict"
    )
    sent = f"-H 'Authorization: Bearer {token}'"
    status, written = await run(f"{curl} {sent}")
    assert status == 0, written
    assert json.loads(written)["result"]["data"]["values"]
    status, written = await run(grpcurl % sent)
    assert status == 0, written
    assert "values" in written
    for refused in ("", "-H 'Authorization: Bearer wrong'"):
        _, written = await run(f"{curl} {refused}")
        assert "redentials" in json.loads(written)["details"]
        status, written = await run(grpcurl % refused)
        assert status != 0
        # Of the service's description or, where Serve gives that by itself, of the call.
        assert "Unauthenticated" in written


async def test_serves_own_answers_are_not_to_be_had_outside(
    edge: Any, run: Any, platform: Any
) -> None:
    for path in ("/-/healthz", "/-/routes", "/%2d/routes"):
        answer = await edge.client.get(path)
        assert answer.status_code == 404
        assert "Unknown request URL" in answer.text
    async with httpx.AsyncClient(trust_env=False) as client:
        # It is there: what is not there could not be closed.
        assert (await client.get(f"{platform.url}/-/healthz")).status_code == 200
    for method in ("Healthz", "ListApplications"):
        name = f"ray.serve.RayServeAPIService/{method}"
        _, written = await run(f"grpcurl -plaintext {LIST} {platform.grpc} {name}")
        # Ray's HAProxy answers without a content type, which grpcurl takes amiss.
        assert "Unimplemented" not in written
        status, written = await run(f"grpcurl -insecure {LIST} localhost:{edge.port} {name}")
        assert status != 0
        assert "Code: Unimplemented" in written


async def test_a_client_cannot_give_serves_proxy_orders(edge: Any, token: str) -> None:
    # Serve answers 408 by itself when the time that this header grants is over.
    headers = {"x-request-timeout-seconds": "0.000001", "authorization": f"Bearer {token}"}
    body = {"inputs": "hi", "model_id": MODEL}
    answer = await edge.client.post("/api/v1/task/embedding", json=body, headers=headers)
    assert answer.status_code == 200


def test_rays_own_processes_listen_to_this_machine_alone(platform: Any) -> None:
    names = platform.processes()
    found = {
        (names[connection.pid], connection.laddr[0])
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.pid in names
    }
    assert any("gcs_server" in name for name, _ in found)
    assert any("raylet" in name for name, _ in found)
    loopback = ("127.0.0.1", "::ffff:127.0.0.1", "::1")
    outside = {name for name, address in found if address not in loopback}
    assert [name for name in outside if not SERVES_DOORS.match(name)] == []
