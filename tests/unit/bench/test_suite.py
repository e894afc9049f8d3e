import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from rayserve_platform.bench.errors import BenchError
from rayserve_platform.bench.peer import Peer
from rayserve_platform.bench.peers import PEERS
from rayserve_platform.bench.suite import _config, run_suite
from rayserve_platform.bench.suite_plan import SuitePlan, choose, part_named

# An OpenAI-compatible server in the standard library: one connection per request.
OPENAI = """
import http.server, json, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def log_message(self, *words):
        pass
    def answer(self, kind, body):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer("application/json", b'{"data": [{"id": "m"}]}')
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert asked.get("model", "m") == "m", asked
        if not asked.get("stream"):
            return self.answer("application/json", b"{}")
        events = [{"choices": [{"delta": {"content": "x"}}]}] * 4
        events.append({"choices": [], "usage": {"completion_tokens": 4}})
        lines = [f"data: {json.dumps(event)}" for event in events] + ["data: [DONE]", ""]
        self.answer("text/event-stream", "\\n\\n".join(lines).encode())
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


def peer(name: str, part: str = "llm", script: str = OPENAI, reference: str = "one") -> Peer:
    return Peer(
        name=name, about="", part=part_named(part) or "llm", reference=reference,
        command=("{python}", "-c", script.replace("{", "{{").replace("}", "}}"), "{port}"),
    )  # fmt: skip


def plan(tmp_path: Path, *peers: Peer) -> SuitePlan:
    return SuitePlan(
        peers=peers, out=tmp_path, runs=2, rounds=2, concurrency=(1, 2), per_client=2, seconds=1,
        ready_s=30, use_wrk=False,
    )  # fmt: skip


def test_rounds_alternate_between_servers_and_pool_their_runs(tmp_path: Path):
    said: list[str] = []
    one, two = run_suite(plan(tmp_path, peer("one"), peer("two")), said.append)
    starts = [line.split()[2].rstrip(":") for line in said if line.endswith("starting")]
    assert starts == ["one", "two", "one", "two"]
    for outcome in (one, two):
        assert outcome.failures == []
        assert [len(load.runs) for load in outcome.loads] == [4, 4]
        assert len(outcome.startup_s) == 2
        assert outcome.rss_mb
    assert [run.succeeded for run in two.load("c=2").runs] == [4, 4, 4, 4]
    assert {path.name for path in tmp_path.glob("*.log")} == {
        "one-round1.log", "one-round2.log", "two-round1.log", "two-round2.log",
    }  # fmt: skip


def test_overhead_part_counts_answers_and_chunks(tmp_path: Path):
    once = replace(plan(tmp_path, peer("one", "overhead")), rounds=1, runs=1)
    (outcome,) = run_suite(once, lambda _: None)
    unary, stream = outcome.loads
    assert (unary.load, stream.load) == ("unary c=16", "stream c=8")
    assert unary.median("requests_per_s")
    assert unary.median("events_per_s") is None
    assert stream.median("events_per_s")
    assert unary.runs[0].driver == "aiohttp"


def test_server_that_fails_is_noted_and_the_next_goes_on(tmp_path: Path):
    broken = peer("broken", script="raise SystemExit('no model')")
    failed, good = run_suite(plan(tmp_path, broken, peer("one")), lambda _: None)
    assert len(failed.failures) == 2
    assert "no model" in failed.failures[0]
    assert good.failures == []


def test_server_that_answers_nothing_right_is_a_failure(tmp_path: Path):
    silent = peer("silent", script=OPENAI.replace("text/event-stream", "application/json"))
    (outcome,) = run_suite(replace(plan(tmp_path, silent), rounds=1, ready_s=2), lambda _: None)
    assert "no request succeeded (bad_answer x1)" in outcome.failures[0]


def test_choice_is_by_name_and_part():
    assert choose([], None) == PEERS
    assert [found.name for found in choose(["vllm", "bare-hop"], None)] == ["vllm", "bare-hop"]
    assert {found.part for found in choose([], part_named("overhead"))} == {"overhead"}
    with pytest.raises(BenchError, match="unknown server x; known: auth-access"):
        choose(["x"], None)
    with pytest.raises(BenchError, match="none of bare-hop is in part llm"):
        choose(["bare-hop"], "llm")


def test_missing_model_is_refused_before_anything_starts(tmp_path: Path):
    vllm = choose(["vllm"], None)
    with pytest.raises(BenchError, match="need a Hugging Face model: --model DIR"):
        run_suite(SuitePlan(peers=vllm, out=tmp_path), print)
    with pytest.raises(BenchError, match=r"has no config\.json"):
        run_suite(SuitePlan(peers=vllm, out=tmp_path, model=tmp_path), print)


@pytest.mark.parametrize(
    ("name", "haproxy", "throughput"),
    [
        ("ours-fake-separate", "1", "1"),
        ("ours-fake-separate-plain", "1", None),
        ("ours-fake-separate-classic", None, None),
    ],
)
def test_a_data_plane_is_the_shipped_config_without_its_settings(
    tmp_path: Path, name: str, haproxy: str | None, throughput: str | None
):
    configs = Path(__file__).parents[3] / "configs/bench"
    (server,) = choose([name], None)
    path = _config(SuitePlan(peers=(server,), out=tmp_path, configs=configs), server)
    assert path is not None
    content = yaml.safe_load(path.read_text())
    variables = content["controller_options"]["runtime_env"]["env_vars"]
    assert variables.get("RAY_SERVE_ENABLE_HA_PROXY") == haproxy
    assert variables.get("RAY_SERVE_THROUGHPUT_OPTIMIZED") == throughput
    shipped = yaml.safe_load((configs / "fake-separate.yaml").read_text())
    assert content["applications"] == shipped["applications"]


def test_missing_config_is_refused_before_anything_starts(tmp_path: Path):
    fake = choose(["ours-fake-separate"], None)
    with pytest.raises(BenchError, match=r"fake-separate.yaml; run from the repository's root"):
        run_suite(SuitePlan(peers=fake, out=tmp_path, configs=tmp_path), print)


def test_peer_runs_with_this_interpreter(tmp_path: Path):
    shows = peer("one", script="import sys; print(sys.executable); raise SystemExit(1)")
    (outcome,) = run_suite(replace(plan(tmp_path, shows), rounds=1), lambda _: None)
    assert sys.executable in outcome.failures[0]
