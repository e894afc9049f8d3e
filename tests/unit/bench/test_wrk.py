import json
import re
import stat
from pathlib import Path

import pytest

from rayserve_platform.bench.calls import Call
from rayserve_platform.bench.errors import BenchError
from rayserve_platform.bench.wrk import _lua, read_report, run_wrk

# Printed by wrk 4.1.0 (--latency); the last two lines of the first part appear on errors only.
REPORT = """\
Running 2s test @ http://127.0.0.1:8000/
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     7.20ms    1.10ms  31.12ms   90.12%
    Req/Sec     2.25k   200.00     2.60k    70.00%
  Latency Distribution
     50%  712.00us
     75%    7.53ms
     90%    8.64ms
     99%    1.01s
  4502 requests in 2.00s, 1.41MB read
Requests/sec:   2251.00
Transfer/sec:    720.51KB
"""
WITH_ERRORS = REPORT.replace(
    "Requests/sec",
    "  Socket errors: connect 1, read 2, write 3, timeout 4\n"
    "  Non-2xx or 3xx responses: 502\nRequests/sec",
)


def test_report_gives_rate_and_latency():
    result = read_report(REPORT, load="c=16")
    assert (result.driver, result.load, result.succeeded) == ("wrk", "c=16", 4502)
    assert (result.requests_per_s, dict(result.errors)) == (2251.0, {})
    assert result.latency_p50_s == pytest.approx(712e-6)
    assert result.latency_p99_s == 1.01


def test_bad_answers_are_errors_not_requests():
    result = read_report(WITH_ERRORS, load="c=16")
    assert dict(result.errors) == {"http_error": 502, "connect": 1, "disconnect": 5, "timeout": 4}
    assert (result.succeeded, result.requests_per_s) == (4000, 2000.0)


def test_anything_else_is_refused():
    with pytest.raises(BenchError, match="can't be read: unable to connect"):
        read_report("unable to connect", load="c=1")


def program(tmp_path: Path, script: str) -> str:
    path = tmp_path / "wrk"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_wrk_is_run_with_a_script_that_posts_the_body(tmp_path: Path):
    seen = tmp_path / "seen"
    report = tmp_path / "report"
    report.write_text(REPORT)
    script = f'echo "$@" > {seen}; for last; do test -f "$last" && cat "$last" >> {seen}; done; '
    body = json.dumps({"text": 'a "quoted" line\n'}).encode()
    call = Call(url="http://127.0.0.1:1/raw", bodies=(body,), headers={"X-A": "b"}, timeout_s=7)
    run_wrk(program(tmp_path, script + f"cat {report}"), call, concurrency=16, duration_s=2)
    text = seen.read_text()
    assert "--latency -t1 -c16 -d2s --timeout=7s -s " in text
    assert text.splitlines()[0].endswith("http://127.0.0.1:1/raw")
    assert 'wrk.method = "POST"' in text
    escaped = body.decode().replace("\\", "\\092").replace('"', "\\034")
    assert f'wrk.body = "{escaped}"' in text
    assert 'wrk.headers["X-A"] = "b"' in text


def test_binary_bodies_are_written_as_lua_reads_them():
    text = _lua(bytes(range(256)))
    assert text.isascii()
    assert text.isprintable()
    # Lua 5.1, 2.1: a backslash and three digits stand for the byte of that number.
    read = re.sub(r"\\(\d{3})", lambda found: chr(int(found[1])), text[1:-1])
    assert read.encode("latin-1") == bytes(range(256))
    assert '"' not in re.sub(r"\\\d{3}", "", text[1:-1])


def test_failing_wrk_is_a_clear_error(tmp_path: Path):
    failing = program(tmp_path, "echo unable to connect >&2; exit 1")
    with pytest.raises(BenchError, match="wrk failed: unable to connect"):
        run_wrk(
            failing, Call(url="http://127.0.0.1:1/", bodies=(b"{}",)), concurrency=1, duration_s=1
        )
