import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer
from click.testing import CliRunner, Result

from rayserve_platform.cli.bench import bench


@pytest.fixture
def url(new_server) -> Iterator[str]:
    """The tiny server on a thread of its own: the command runs an event loop itself."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> TestServer:
        server = TestServer(new_server().app())
        await server.start_server()
        return server

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    yield str(server.make_url("/"))
    asyncio.run_coroutine_threadsafe(server.close(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)
    loop.close()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(bench, arguments)


def test_load_prints_a_table_and_writes_results(url: str, tmp_path: Path):
    out = tmp_path / "deep" / "out"
    done = run("load", url, "-c", "1", "-c", "2", "-n", "4", "--runs", "2", "--out", str(out),
               "--api-key", "secret-key", "--header", "X-Token: secret-header")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "medians of 2 runs" in done.output
    record = json.loads((out / "results.json").read_text())
    assert [(load["load"], len(load["runs"])) for load in record["loads"]] == [
        ("c=1", 2),
        ("c=2", 2),
    ]
    assert record["settings"]["max_tokens"] == 64
    assert "secret" not in (out / "results.json").read_text()
    assert (out / "results.png").read_bytes().startswith(b"\x89PNG")


def test_load_drives_a_fixed_body_and_an_open_loop(url: str):
    raw = run("load", url, "--raw-path", "raw", "--body", '{"stream": true}', "-n", "4")
    assert raw.exit_code == 0, raw.output
    assert "chunks/s" in raw.output
    opened = run("load", url, "--rate", "200", "-n", "4", "--runs", "1", "--no-stream")
    assert opened.exit_code == 0, opened.output
    assert "rate=200/s" in opened.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "fails"], "no request succeeded (http_503 x4)"),
        (["--model", "fails", "--warmup", "0"], "no request succeeded"),
        (["--rate", "1", "-c", "1"], "--rate (open loop) goes with neither"),
        (["--header", "nonsense"], "must read 'Name: value'"),
        (["--raw-path", "/raw", "--body", "{"], "--body is not JSON"),
        (["--api-key", "wrong"], "answered 401"),
        (["--prompts", "missing.txt"], "does not exist"),
        (["--runs", "0"], "not in the range"),
    ],
)
def test_mistakes_are_one_line_and_no_traceback(url: str, arguments: list[str], message: str):
    done = run("load", url, *arguments)
    assert done.exit_code != 0
    assert message in done.output
    assert "Traceback" not in done.output
    assert isinstance(done.exception, SystemExit)


def test_url_needs_a_scheme():
    assert "must start with http" in run("load", "127.0.0.1:1").output


def test_suite_lists_its_servers():
    done = run("suite", "--list", "--part", "overhead")
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.output.splitlines()] == [
        "bare-ingress",
        "ours-fake-colocated", "ours-fake-colocated-plain", "ours-fake-colocated-classic",
        "bare-hop",
        "ours-fake-separate", "ours-fake-separate-plain", "ours-fake-separate-classic",
    ]  # fmt: skip


def test_suite_lists_the_servers_of_the_caikit_part():
    done = run("suite", "--list", "--part", "caikit")
    assert [line.split()[0] for line in done.output.splitlines()] == [
        "caikit", "ours-caikit", "ours-caikit-separate", "in-process",
    ]  # fmt: skip


def test_suite_lists_the_servers_of_the_tgis_part():
    done = run("suite", "--list", "--part", "tgis")
    assert [line.split()[0] for line in done.output.splitlines()] == [
        "vllm-completions", "ours-tgis-separate", "ours-tgis-colocated",
    ]  # fmt: skip


def test_suite_lists_the_servers_of_the_v2_part():
    done = run("suite", "--list", "--part", "v2")
    assert [line.split()[0] for line in done.output.splitlines()] == [
        "kserve", "mlserver", "ours-v2", "ours-v2-replica", "ours-v2-replicas", "openvino",
    ]  # fmt: skip


def test_suite_lists_the_servers_of_the_genai_part():
    done = run("suite", "--list", "--part", "genai")
    assert [line.split()[0] for line in done.output.splitlines()] == [
        "vllm-chat", "ours-genai-separate", "ours-genai-colocated", "openvino-genai",
    ]  # fmt: skip


def test_suite_lists_the_servers_of_the_auth_part():
    done = run("suite", "--list", "--part", "auth")
    assert [line.split()[0] for line in done.output.splitlines()] == [
        "auth-none", "auth-key", "auth-review", "auth-access", "auth-rs256", "auth-es256",
    ]  # fmt: skip


@pytest.mark.parametrize("given", [None, "other.gguf"])
def test_the_pipeline_gets_the_file_that_our_configs_serve_unless_another_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None
):
    (tmp_path / "openvino_genai.py").write_text("import sys; raise SystemExit(str(sys.argv))")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[3]}")
    if given:
        (tmp_path / given).touch()
    named = ("--gguf", str(tmp_path / given)) if given else ()
    done = run("suite", "--only", "openvino-genai", "--out", str(tmp_path / "out"), *named)
    assert done.exit_code == 1
    record = json.loads((tmp_path / "out/results.json").read_text())
    assert (given or "SmolLM2-135M-Instruct.Q4_1.gguf") in record["servers"][0]["failures"][0]


def test_suite_says_how_to_build_what_the_caikit_part_needs(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    done = run("suite", "--only", "caikit", "--embedder", str(tmp_path),
               "--caikit-env", str(tmp_path), "--out", str(tmp_path / "out"))  # fmt: skip
    assert done.exit_code == 1
    assert done.output.splitlines()[-1].endswith("build it with: make caikit-peer")
    assert not (tmp_path / "out").exists()


def test_suite_refuses_what_it_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert "unknown server nobody" in run("suite", "--only", "nobody").output
    done = run("suite", "--only", "ours-separate", "--configs", str(tmp_path))
    assert "config files not found" in done.output
    assert not Path("bench-results").exists()


def test_suite_writes_results_and_fails_when_a_server_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    broken = tmp_path / "vllm"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise SystemExit('no engine here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    out = tmp_path / "out"
    done = run("suite", "--only", "vllm", "--model", str(model), "--out", str(out))
    assert done.exit_code == 1
    assert "not measured in every round: vllm" in done.output
    record = json.loads((out / "results.json").read_text())
    assert "no engine here" in record["servers"][0]["failures"][0]
    assert "FAILED vllm" in (out / "results.txt").read_text()
