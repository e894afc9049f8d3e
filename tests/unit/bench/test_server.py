import os
import signal
import sys
import time
from pathlib import Path

import httpx
import pytest

from rayserve_platform.bench.errors import BenchError
from rayserve_platform.bench.ports import free_port
from rayserve_platform.bench.processes import cpu_s_of, process_name
from rayserve_platform.bench.server import (
    ServerCommand,
    environment,
    running,
    stopping_by_signal,
)

SERVES = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/ready" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""
# A grandchild in a session of its own whose parent ends: what a daemon is. It ignores SIGTERM.
LEAVES_A_DAEMON = """
import os, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleeper = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); "
           "time.sleep(600)"]
if os.fork() == 0:
    os.setsid()
    child = subprocess.Popen(sleeper, start_new_session=True)
    open(sys.argv[2], "w").write(str(child.pid))
    os._exit(0)
os.wait()
"""

# A child that works until it is told to end.
HAS_A_WORKER = """
import subprocess, sys
works = "import sys\\nwhile True: sum(range(1000))"
child = subprocess.Popen([sys.executable, "-c", works])
import http.server
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def do_DELETE(self):
        child.kill()
        child.wait()
        self.do_GET()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def command(tmp_path: Path, script: str, *arguments: str, ready_s: float = 30.0) -> ServerCommand:
    port = free_port()
    return ServerCommand(
        name="tiny",
        argv=[sys.executable, "-c", script, str(port), *arguments],
        environment=environment({"COLOUR": "red"}),
        port=port,
        grpc_port=free_port(),
        ready_path="/ready",
        log=tmp_path / "tiny.log",
        ready_s=ready_s,
        stop_s=0.5,
    )


def test_server_runs_until_the_end_of_the_block(tmp_path: Path):
    with running(command(tmp_path, SERVES)) as server:
        (process,) = server.memory()
        assert process.rss_mb > 0
        assert process.name == "python -c"
    assert not exists(process.pid)


def test_daemons_of_the_server_end_with_it(tmp_path: Path):
    pid_file = tmp_path / "pid"
    with running(command(tmp_path, LEAVES_A_DAEMON + SERVES, str(pid_file))):
        daemon = int(pid_file.read_text())
        assert exists(daemon)
    assert not exists(daemon)


def test_cpu_time_counts_all_processes_and_stays_when_one_of_them_ends(
    tmp_path: Path,
):
    with running(command(tmp_path, HAS_A_WORKER)) as server:
        while (used_s := server.cpu_s()) < 0.5:
            time.sleep(0.05)
        idle_s, _ = sorted(cpu_s_of(process.pid for process in server.memory()).values())
        assert idle_s < used_s
        httpx.delete(server.url, trust_env=False).raise_for_status()
        assert len(server.memory()) == 1
        assert server.cpu_s() >= used_s


def test_server_that_ends_early_is_reported_with_its_log(tmp_path: Path):
    broken = command(tmp_path, "print('no such model'); raise SystemExit(3)")
    with pytest.raises(BenchError, match=r"(?s)status 3 before it was ready.*no such model"):
        running(broken).__enter__()


def test_server_that_is_never_ready_is_given_up_and_ended(tmp_path: Path):
    script = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    slow = command(tmp_path, script, ready_s=0.6)
    with pytest.raises(BenchError, match=r"not ready within 0\.6 s"):
        running(slow).__enter__()
    assert not exists(int((tmp_path / "tiny.log").read_text()))


def test_command_that_does_not_exist_is_a_clear_error(tmp_path: Path):
    missing = ServerCommand(
        name="tiny", argv=["/no/such/program"], environment={}, port=1, grpc_port=2, ready_path="/",
        log=tmp_path / "log",
    )  # fmt: skip
    with pytest.raises(BenchError, match="tiny can't be started"):
        running(missing).__enter__()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_the_server_too(tmp_path: Path, number: signal.Signals):
    pids: list[int] = []

    def interrupted() -> None:
        with stopping_by_signal(), running(command(tmp_path, SERVES)) as server:
            pids.extend(process.pid for process in server.memory())
            os.kill(os.getpid(), number)
            time.sleep(30)

    # As a shell does for background jobs; and without nohup, whatever the tests run under.
    inherited = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    }
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    finally:
        for signalled, handler in inherited.items():
            signal.signal(signalled, handler)
    assert pids
    assert not any(exists(pid) for pid in pids)


def test_environment_never_leads_to_another_cluster(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setenv("COLOUR", "red")
    found = environment({"SHAPE": "round"}, {"COLOUR": "blue"})
    assert "RAY_ADDRESS" not in found
    assert (found["SHAPE"], found["COLOUR"]) == ("round", "blue")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["ray::ServeReplica:app:Ingress"], "ray::ServeReplica:app:Ingress"),
        (["VLLM::EngineCore", "", ""], "VLLM::EngineCore"),
        (["/opt/bin/haproxy", "-f", "x"], "haproxy"),
        (["/opt/bin/python3.11", "-u", "-m", "some.server", "--port"], "python -m some.server"),
        (["/opt/bin/python", "/opt/ray/dashboard.py", "--x"], "python dashboard.py"),
        (["python", "-c", "code"], "python -c"),
        (["python"], "python"),
        ([], "kernel"),
    ],
)
def test_processes_are_told_by_what_they_run(arguments: list[str], name: str):
    assert process_name(arguments, "kernel") == name
