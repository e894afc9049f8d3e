"""A platform as a user runs it: `rayserve run CONFIG` in a process of its own, on a real Ray."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from rayserve_platform.bench.cluster import cluster_environment
from rayserve_platform.bench.ports import free_port

ROOT = Path(__file__).parents[2]
READY = re.compile(r"^gRPC: .*Ctrl-C stops", re.MULTILINE)
START_DEADLINE_S = 600
STOP_DEADLINE_S = 120


def readme_lines(section: str) -> list[str]:
    """Return the curl and grpcurl blocks of a section of the README (`###`), or of another file."""
    if section.endswith(".md"):
        found = (ROOT / section).read_text()
    else:
        text = (ROOT / "README.md").read_text()
        [found] = re.findall(
            rf"^### {re.escape(section)}\n(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL
        )
    blocks = re.findall(r"^```bash\n(.*?)^```", found, re.MULTILINE | re.DOTALL)
    return [block for block in blocks if block.startswith(("curl", "grpcurl"))]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with `readme_line` once for each line of the section, or the file, it names."""
    if "readme_line" in metafunc.fixturenames:
        lines = readme_lines(metafunc.module.README_SECTION)
        assert lines, f"the README has no lines under {metafunc.module.README_SECTION!r}"
        metafunc.parametrize("readme_line", lines, ids=range(len(lines)))


class Platform:
    """One running platform.

    Args:
        config: the Serve config file.
        folder: where Ray keeps its session; short, since Unix sockets live in it.
        ports: HTTP and gRPC ports to use instead of the config's own.
    """

    def __init__(
        self, config: Path, folder: Path, ports: tuple[int, int] | None, *, dashboard: bool
    ) -> None:
        self.config = config
        self.folder = folder
        self.env = {
            **os.environ,
            # grpcurl and Ray's own commands are installed beside this interpreter.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            **cluster_environment(folder),
        }
        http_port, grpc_port = ports or (8000, 9000)
        self.url = f"http://127.0.0.1:{http_port}"
        self.grpc = f"127.0.0.1:{grpc_port}"
        self._log = folder / "output.txt"
        command = [sys.executable, "-m", "rayserve_platform.cli", "run", str(config)]
        if ports:
            command += ["--http-port", str(http_port), "--grpc-port", str(grpc_port)]
        if dashboard:
            command.append("--dashboard")
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """What it has printed."""
        return self._log.read_text(errors="replace")

    @property
    def session(self) -> Path:
        """Ray's session directory."""
        return self.folder / "ray/session_latest"

    def run_line(self, command: str) -> str:
        """Run a line of the README against this platform and return what it prints."""
        command = command.replace("http://127.0.0.1:8000", self.url)
        command = command.replace("127.0.0.1:9000", self.grpc)
        if command.startswith("curl "):
            command = command.replace("curl ", "curl -sS --fail-with-body ", 1)
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def wait_ready(self) -> None:
        """Wait for the block that says where the models are."""
        deadline = time.monotonic() + START_DEADLINE_S
        while not READY.search(self.output):
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.3)

    def deploy(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the config and deploy it with Ray's own command, without waiting for it.

        The platform was started with its dashboard.
        """
        content = yaml.safe_load(self.config.read_text())
        port = int(self.url.rsplit(":", 1)[1])
        content["http_options"]["port"] = port
        content["grpc_options"]["port"] = int(self.grpc.rsplit(":", 1)[1])
        change(content)
        changed = self.folder / "changed.yaml"
        changed.write_text(yaml.safe_dump(content))
        found = re.search(r"dashboard at \S*?(http://[\d.]+:\d+)", self.output)
        assert found is not None, self.output
        command = [str(Path(sys.executable).with_name("serve")), "deploy"]
        done = subprocess.run(
            [*command, str(changed), "--address", found[1]],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def processes(self) -> dict[int, str]:
        """Return the live processes of the platform's session, by pid, with their names."""
        found: dict[int, str] = {}
        marker = f"RAY_TMPDIR={self.folder}".encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if marker in (entry / "environ").read_bytes().split(b"\0"):
                    name = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if name:
                        found[int(entry.name)] = name
            except OSError:
                continue
        return found

    def stop(self) -> int:
        """Press Ctrl-C and return the exit status."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(STOP_DEADLINE_S)

    def kill(self) -> None:
        """End whatever is left."""
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(STOP_DEADLINE_S)


@pytest.fixture(scope="package")
def start_platform() -> Iterator[Callable[..., Platform]]:
    """Start platforms, one at a time: several would share a small machine's memory."""
    started: list[Platform] = []

    def end_all() -> None:
        while started:
            platform = started.pop()
            try:
                platform.stop()
            finally:
                platform.kill()
                shutil.rmtree(platform.folder, ignore_errors=True)

    def start(config: Path, *, free_ports: bool = False, dashboard: bool = False) -> Platform:
        end_all()
        ports = (free_port(), free_port()) if free_ports else None
        folder = Path(tempfile.mkdtemp(prefix="rs-", dir="/tmp"))
        (folder / "haproxy").mkdir()
        platform = Platform(config, folder, ports, dashboard=dashboard)
        started.append(platform)
        platform.wait_ready()
        return platform

    yield start
    end_all()


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    """An HTTP client that waits as long as a redeploy may take."""
    with httpx.Client(timeout=httpx.Timeout(240, connect=10)) as made:
        yield made
