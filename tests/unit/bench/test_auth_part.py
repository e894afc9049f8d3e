from io import StringIO
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from rayserve_platform.bench import auth_part
from rayserve_platform.bench.auth_peer import KINDS, MODEL, application
from rayserve_platform.bench.charts import draw_suite
from rayserve_platform.bench.outcome import Outcome, comparisons
from rayserve_platform.bench.peer import Peer
from rayserve_platform.bench.suite import run_suite
from rayserve_platform.bench.suite_plan import SuitePlan
from rayserve_platform.bench.tables import suite_tables

BODY = {"model": MODEL, "prompt": "x", "max_tokens": 1}
# Lets the token in, and says that a check costs 15 us of CPU.
SERVER = """
import http.server, json, sys
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    def log_message(self, *words):
        pass
    def do_GET(self):
        self.answer(200, {})
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/bench/token":
            return self.answer(200, {"token": "a-token"})
        if self.path.startswith("/bench/check/"):
            return self.answer(200, COST)
        let_in = self.headers["Authorization"] == WANTED
        self.answer(200 if let_in else 401, {})
    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


def peer(
    name: str, *, wanted: str | None = "Bearer a-token", cost: str = "{'cpu_s': 15e-6}"
) -> Peer:
    script = SERVER.replace("WANTED", repr(wanted)).replace("COST", cost)
    return Peer(
        name=name, about="", part="auth", reference="auth-none", ready_path="/",
        command=("{python}", "-c", script.replace("{", "{{").replace("}", "}}"), "{port}"),
    )  # fmt: skip


def measure(out: Path, monkeypatch: pytest.MonkeyPatch, *peers: Peer) -> list[Outcome]:
    monkeypatch.setattr(auth_part, "_WARM_UP_S", 0.1)
    plan = SuitePlan(peers=peers, out=out, runs=1, seconds=1, ready_s=30, use_wrk=False)
    return run_suite(plan, lambda _: None)


def test_a_check_is_told_in_shares_of_its_bound_and_requests_of_those_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    outcomes = measure(tmp_path, monkeypatch, peer("auth-none", wanted=None), peer("auth-key"))
    assert [outcome.failures for outcome in outcomes] == [[], []]
    none, key = outcomes
    assert key.load("unary c=16").median("requests_per_s")
    assert key.load("unary c=16").errors == {}
    assert {load.load: load.median("server_cpu_s") for load in none.loads[1:]} == {
        "one check, at most 30 us": pytest.approx(30e-6),
        "one check, at most 500 us": pytest.approx(500e-6),
    }
    (found,) = (
        row for row in comparisons(outcomes) if row["server"] == "auth-key" and "check" in str(row)
    )
    assert found["ratios"] == {"server_cpu_s": pytest.approx(0.5)}
    console = Console(width=250, file=StringIO(), record=True)
    console.print(suite_tables(outcomes))
    assert "15 (0.50)" in console.export_text()
    draw_suite(outcomes, tmp_path / "results.png")
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_a_server_that_does_not_tell_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (outcome,) = measure(tmp_path, monkeypatch, peer("auth-key", cost="{}"))
    (failure,) = outcome.failures
    assert "did not say what a check costs" in failure


@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_of_check_lets_its_own_token_in_and_no_other(tmp_path: Path, kind: str):
    app = application(kind, tmp_path)
    assert app.gate is not None
    await app.gate.guard.start()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://bench") as client:
        token = (await client.post("/bench/token")).json()["token"]
        for headers, status in (
            ({}, 401),
            ({"authorization": f"Bearer {token}"}, 200),
        ):
            answer = await client.post("/v1/completions", json=BODY, headers=headers)
            assert answer.status_code == status
        assert (await client.post("/bench/check/20")).json()["cpu_s"] > 0
    await app.gate.guard.stop()


async def test_without_checks_everybody_is_answered(tmp_path: Path):
    transport = httpx.ASGITransport(application("none", tmp_path))
    async with httpx.AsyncClient(transport=transport, base_url="http://bench") as client:
        assert (await client.post("/v1/completions", json=BODY)).status_code == 200
