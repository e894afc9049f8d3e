"""Runs `wrk`, where it is installed, for unary load: a C client leaves the cores to the server."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from rayserve_platform.bench.calls import Call
from rayserve_platform.bench.errors import BenchError
from rayserve_platform.bench.samples import RunResult

_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_TOTAL = re.compile(r"(\d+) requests in ([\d.]+)(us|ms|s|m|h),")
_PERCENTILE = re.compile(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s|m|h)$", re.MULTILINE)
_BAD_STATUS = re.compile(r"Non-2xx or 3xx responses: (\d+)")
_SOCKET_ERRORS = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
# wrk waits for the answers under way, at most --timeout; beyond that it hangs.
_GRACE_S = 30.0


def find_wrk() -> str | None:
    """Return the path of the `wrk` executable, None where it isn't installed."""
    return shutil.which("wrk")


def run_wrk(executable: str, call: Call, *, concurrency: int, duration_s: int) -> RunResult:
    """POST the call's first body for `duration_s` over `concurrency` connections, one thread.

    Raises:
        BenchError: wrk fails, or its report can't be read.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        script = Path(folder) / "post.lua"
        script.write_text(_script(call), encoding="utf-8")
        command = [
            executable, "--latency", "-t1", f"-c{concurrency}", f"-d{duration_s}s",
            f"--timeout={max(1, int(call.timeout_s))}s", "-s", str(script), call.url,
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=duration_s + _GRACE_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BenchError(f"wrk failed: {error}") from error
    if done.returncode:
        raise BenchError(f"wrk failed: {done.stderr.strip() or done.stdout.strip()}")
    return read_report(done.stdout, load=f"c={concurrency}")


def read_report(text: str, *, load: str) -> RunResult:
    """Turn wrk's printed report into a result.

    Raises:
        BenchError: the report lacks its totals.
    """
    total = _TOTAL.search(text)
    if total is None:
        raise BenchError(f"wrk's report can't be read: {text.strip()[:200]}")
    elapsed_s = float(total[2]) * _UNITS_S[total[3]]
    errors = _errors(text)
    succeeded = int(total[1]) - errors.get("http_error", 0)
    latency_s = {found[0]: float(found[1]) * _UNITS_S[found[2]] for found in
                 _PERCENTILE.findall(text)}  # fmt: skip
    return RunResult(
        load=load,
        driver="wrk",
        elapsed_s=elapsed_s,
        succeeded=succeeded,
        errors=errors,
        requests_per_s=succeeded / elapsed_s if succeeded and elapsed_s else None,
        latency_p50_s=latency_s.get("50"),
        latency_p99_s=latency_s.get("99"),
    )


def _errors(text: str) -> dict[str, int]:
    errors: dict[str, int] = {}
    if bad := _BAD_STATUS.search(text):
        errors["http_error"] = int(bad[1])
    if sockets := _SOCKET_ERRORS.search(text):
        connect, read, write, timeout = (int(number) for number in sockets.groups())
        errors |= {"connect": connect, "disconnect": read + write, "timeout": timeout}
    return {kind: number for kind, number in errors.items() if number}


def _script(call: Call) -> str:
    """Return the Lua script that sets method, body and headers."""
    headers = {"Content-Type": "application/json", **call.headers}
    lines = ['wrk.method = "POST"', f"wrk.body = {_lua(call.bodies[0])}"]
    lines += [f"wrk.headers[{_lua(k.encode())}] = {_lua(v.encode())}" for k, v in headers.items()]
    return "\n".join(lines) + "\n"


def _lua(content: bytes) -> str:
    """Return the Lua string of those bytes; by number what is not plainly itself in one."""
    plain = set(range(0x20, 0x7F)) - set(b'"\\')
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03d}" for byte in content) + '"'
