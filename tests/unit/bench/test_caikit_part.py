import json
from pathlib import Path

import pytest

from rayserve_platform.bench import caikit_part
from rayserve_platform.bench.embedding import TaskLoad
from rayserve_platform.bench.outcome import Outcome, comparisons
from rayserve_platform.bench.peer import Peer, Wire
from rayserve_platform.bench.suite import run_suite
from rayserve_platform.bench.suite_plan import SuitePlan

# Answers as Caikit does, with a vector that is no model's.
CAIKIT = """
import concurrent.futures, grpc, http.server, json, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def log_message(self, *words):
        pass
    def do_GET(self):
        self.answer(b"OK")
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert asked["model_id"] == "all-minilm-l6-v2-caikit"
        self.answer(json.dumps({"result": {"data": {"values": [0.6, 0.8]}}}).encode())
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
class Service(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda message, context: b"answer")
server = grpc.server(concurrent.futures.ThreadPoolExecutor(2), handlers=[Service()])
server.add_insecure_port("127.0.0.1:" + sys.argv[2])
server.start()
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""
# The real thing around a model that knows nothing.
MODEL = """
import sys, time, numpy
from rayserve_platform.bench.model_peer import Model, serve
class Fast(Model):
    def __init__(self):
        pass
    def embed(self, texts):
        time.sleep(0.002)
        return numpy.zeros((len(texts), 2), numpy.float32)
def run(batch, words, seconds):
    return Fast().run(int(batch), int(words), float(seconds))
serve(run, int(sys.argv[1]))
"""


def peer(name: str, script: str = CAIKIT, wire: Wire = "caikit") -> Peer:
    return Peer(
        name=name, about="", part="caikit", reference="real", ready_path="/", wire=wire,
        command=("{python}", "-c", script.replace("{", "{{").replace("}", "}}"), "{port}",
                 "{grpc_port}"),
    )  # fmt: skip


@pytest.fixture
def three_loads(monkeypatch: pytest.MonkeyPatch) -> tuple[TaskLoad, ...]:
    """One load for each task and transport, without a long warm-up."""
    loads = (
        TaskLoad(task="embedding", transport="REST", concurrency=2),
        TaskLoad(task="embedding-tasks", transport="gRPC", concurrency=1),
        TaskLoad(task="rerank", transport="REST", concurrency=1),
    )
    monkeypatch.setattr(caikit_part, "LOADS", loads)
    monkeypatch.setattr(caikit_part, "_WARM_UP_S", 0.1)
    return loads


def measure(tmp_path: Path, *peers: Peer, runs: int = 1) -> tuple[list[Outcome], list[str]]:
    said: list[str] = []
    plan = SuitePlan(peers=peers, out=tmp_path, runs=runs, seconds=1, ready_s=30)
    return run_suite(plan, said.append), said


def test_every_load_counts_requests_and_the_texts_in_them(tmp_path: Path, three_loads):
    (outcome,), _ = measure(tmp_path, peer("real"))
    assert outcome.failures == []
    assert [load.load for load in outcome.loads] == [load.label for load in three_loads]
    for load, result, texts in zip(three_loads, outcome.loads, (1, 32, 33), strict=True):
        (run,) = result.runs
        assert run.errors == {}
        assert run.requests_per_s
        assert run.texts_per_s == pytest.approx(run.requests_per_s * texts)
        assert run.ceiling == load.ceiling
    assert [result.runs[0].driver for result in outcome.loads] == ["aiohttp", "grpc.aio", "aiohttp"]


def test_runs_of_one_server_lie_between_those_of_the_other(
    tmp_path: Path, three_loads, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(caikit_part, "LOADS", three_loads[:1])
    outcomes, said = measure(tmp_path, peer("real"), peer("ours"), runs=2)
    starts = [line.removesuffix(": starting") for line in said if line.endswith("starting")]
    assert starts == [
        "round 1/2 real", "round 1/2 ours", "round 2/2 real", "round 2/2 ours",
    ]  # fmt: skip
    assert [len(load.runs) for outcome in outcomes for load in outcome.loads] == [2, 2]


def test_servers_are_compared_with_the_bare_model(tmp_path: Path, three_loads):
    outcomes, _ = measure(tmp_path, peer("real"), peer("bare", MODEL, "model"))
    assert [outcome.failures for outcome in outcomes] == [[], []]
    bare = {load.load: load.median("texts_per_s") for load in outcomes[1].loads}
    assert list(bare) == [
        "batches of 1",
        "batches of 8",
        "batches of 32",
        "batches of 8, 32 tokens each",
        "batches of 32, 32 tokens each",
    ]
    found = comparisons(outcomes)
    (batch,) = (row for row in found if row["load"] == "gRPC embedding-tasks 32 c=1")
    texts = outcomes[0].load("gRPC embedding-tasks 32 c=1").median("texts_per_s")
    assert batch["of_ceiling"] == pytest.approx((texts or 0) / (bare["batches of 32"] or 1))
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('{"values": [0.6, 0.8]}', '{"values": []}'), "answered without a vector"),
        (('b"answer"', "1 / 0"), "no request succeeded (grpc_unknown"),
    ],
)
def test_server_that_answers_with_something_else_is_a_failure(
    tmp_path: Path, three_loads, change: tuple[str, str], message: str
):
    assert change[0] in CAIKIT
    (outcome,), _ = measure(tmp_path, peer("real", CAIKIT.replace(*change)))
    assert message in outcome.failures[0]


def test_bare_model_that_does_not_say_its_times_is_a_failure(tmp_path: Path):
    silent = CAIKIT.replace("assert", "_ = lambda:")
    (outcome,), _ = measure(tmp_path, peer("bare", silent, "model"))
    assert outcome.failures == ["round 1: bare did not say how long its runs took"]
