import json
import subprocess
import sys
from pathlib import Path

import pytest

from rayserve_platform import bench
from rayserve_platform.bench.bare_peer import EVENTS, Work, asgi_app
from rayserve_platform.bench.cluster import cluster_environment
from rayserve_platform.bench.peer import ModelFlags
from rayserve_platform.bench.peers import PEERS
from rayserve_platform.bench.requests import STREAMED_CHUNKS, stream_request, unary_request

VALUES = {
    "python": "py",
    "port": "81",
    "grpc_port": "82",
    "model": "/m",
    "name": "n",
    "config": "cfg/separate.yaml",
    "metrics_port": "83",
    "out": "results",
    "embedder": "/e",
    "caikit": "env",
    "graphs": "graphs",
    "gguf": "m.gguf",
    "kserve": "kserve-env",
    "mlserver": "mlserver-env",
    "scripts": "/here",
}
BY_NAME = {peer.name: peer for peer in PEERS}


def test_vllm_gets_every_flag_on_its_command_line():
    assert BY_NAME["vllm"].argv(VALUES, ModelFlags(max_model_len=99)) == [
        "py", "-m", "vllm.entrypoints.openai.api_server", "--model", "/m",
        "--served-model-name", "n", "--dtype", "float32", "--enforce-eager",
        "--max-model-len", "99", "--host", "127.0.0.1", "--port", "81",
    ]  # fmt: skip


def test_ray_llm_gets_the_same_flags_as_json():
    argv = BY_NAME["ray-llm"].argv(VALUES, ModelFlags(max_model_len=99, enforce_eager=False))
    engine = json.loads(argv[argv.index("--engine-kwargs") + 1])
    assert engine == {"dtype": "float32", "enforce_eager": False, "max_model_len": 99}


def test_ours_are_run_by_the_command_line_with_a_config():
    argv = BY_NAME["ours-separate"].argv(VALUES, ModelFlags())
    assert argv == [
        "py", "-m", "rayserve_platform.cli", "run", "cfg/separate.yaml",
        "--http-port", "81", "--grpc-port", "82", "--no-dashboard",
    ]  # fmt: skip


def test_caikit_runs_in_its_own_environment_and_finds_nothing_of_ours():
    argv = BY_NAME["caikit"].argv(VALUES, ModelFlags())
    assert argv[:3] == ["env/bin/python", "-I", "/here/caikit_peer.py"]
    assert argv[argv.index("--models") + 1] == "env-models"
    assert argv[argv.index("--config") + 1] == "results/caikit.yml"


@pytest.mark.parametrize("name", ["kserve", "mlserver"])
def test_servers_of_kserve_v2_run_in_their_own_environments_on_the_same_models(name: str):
    argv = BY_NAME[name].argv(VALUES, ModelFlags())
    assert argv == [
        f"{name}-env/bin/python", "-I", f"/here/{name}_peer.py", "--models", "graphs",
        "--http-port", "81", "--grpc-port", "82", "--metrics-port", "83",
    ]  # fmt: skip
    script = Path(bench.__file__).parent / f"{name}_peer.py"
    shown = [sys.executable, "-I", str(script), "--help"]
    done = subprocess.run(shown, capture_output=True, text=True, check=True, timeout=60)
    assert all(option in done.stdout for option in argv[3::2])


def test_every_peer_is_compared_with_a_peer_of_its_part():
    for peer in PEERS:
        assert BY_NAME[peer.reference].part == peer.part
        assert "{" not in "".join(peer.argv(VALUES, ModelFlags(enforce_eager=True))[:3])


@pytest.mark.parametrize("name", ["bare-hop", "ours-fake-separate"])
def test_overhead_requests_ask_for_as_many_chunks_as_the_bare_peer_sends(name: str):
    path, body = stream_request(BY_NAME[name], "m")
    assert path in ("/stream", "/v1/completions")
    assert name == "bare-hop" or json.loads(body)["max_tokens"] == STREAMED_CHUNKS == EVENTS
    assert json.loads(unary_request(BY_NAME[name], "m")[1])["stream"] is False


def test_clusters_share_no_file_and_no_port(tmp_path: Path):
    one = cluster_environment(tmp_path / "one")
    two = cluster_environment(tmp_path / "two")
    for ports_of in (one, two):
        low, high, next_low, next_high = (
            int(ports_of[f"RAY_SERVE_DIRECT_INGRESS_{end}_{wire}_PORT"])
            for wire in ("HTTP", "GRPC")
            for end in ("MIN", "MAX")
        )
        assert 20_000 <= low < high < next_low < next_high < 30_000
    same = {name for name in one if "INGRESS_M" not in name and one[name] == two[name]}
    assert same == {
        "RAY_AUTH_MODE",
        "RAY_USAGE_STATS_ENABLED",
        "RAY_worker_niceness",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S",
    }


async def ask(method: str, path: str, body: bytes) -> list[dict]:
    """Send one request to the bare app, its body in two pieces; return what it sent."""
    work = Work()
    pieces = [
        {"type": "http.request", "body": body[:3], "more_body": True},
        {"type": "http.request", "body": body[3:]},
    ]
    sent: list[dict] = []

    async def receive():
        return pieces.pop(0)

    async def send(message):
        sent.append(message)

    await asgi_app(work.echo, work.chunks)(
        {"type": "http", "method": method, "path": path}, receive, send
    )
    return sent


async def test_bare_app_echoes_the_body():
    start, body = await ask("POST", "/", b'{"a": 1}')
    assert dict(start["headers"])[b"content-length"] == b"8"
    assert body["body"] == b'{"a": 1}'


async def test_bare_app_streams_events_of_about_150_bytes():
    start, *events, end = await ask("POST", "/stream", b"{}  ")
    assert (dict(start["headers"]), len(events)) == (
        {b"content-type": b"text/event-stream"},
        EVENTS,
    )
    assert all(140 <= len(event["body"]) <= 160 for event in events)
    assert not end.get("more_body")


async def test_bare_app_answers_any_get_when_it_is_ready():
    start, _ = await ask("GET", "/anything", b"")
    assert start["status"] == 200
