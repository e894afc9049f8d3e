import json
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from rayserve_platform.bench import v2_part
from rayserve_platform.bench.charts import draw_suite
from rayserve_platform.bench.errors import BenchError
from rayserve_platform.bench.inference import ANSWERS, LOADS, InferLoad
from rayserve_platform.bench.outcome import Outcome, comparisons
from rayserve_platform.bench.peer import Peer, Wire
from rayserve_platform.bench.suite import _config, run_suite
from rayserve_platform.bench.suite_plan import SuitePlan, choose
from rayserve_platform.bench.tables import suite_tables
from rayserve_platform.settings.openvino import OpenVINOApp

# Answers every inference with the same numbers, on all wires.
SERVER = """
import concurrent.futures, grpc, http.server, json, struct, sys
from rayserve_platform.pb import kserve_inference_pb2 as pb, kserve_inference_pb2_grpc as rpc
NUMBERS = [0.5, 0.25]
RAW = struct.pack("<2f", *NUMBERS)
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body at once: apart, each answer waits 40 ms for an acknowledgement
    def log_message(self, *words):
        pass
    def do_GET(self):
        self.answer(b"", {})
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        length = self.headers["Inference-Header-Content-Length"]
        asked = json.loads(body[:int(length)] if length else body)
        assert asked["inputs"]
        if not length:
            return self.answer(json.dumps({"outputs": [{"data": NUMBERS}]}).encode(), {})
        head = json.dumps({"outputs": [{"parameters": {"binary_data_size": 8}}]}).encode()
        self.answer(head + RAW, {"Inference-Header-Content-Length": len(head)})
    def answer(self, body, headers):
        self.send_response(200)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)
class Service(rpc.GRPCInferenceServiceServicer):
    def ModelInfer(self, asked, context):
        assert asked.raw_input_contents
        return pb.ModelInferResponse(raw_output_contents=[RAW])
server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
rpc.add_GRPCInferenceServiceServicer_to_server(Service(), server)
server.add_insecure_port("127.0.0.1:" + sys.argv[2])
server.start()
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""
# The real thing around models that know nothing.
MODELS = """
import sys, time
from rayserve_platform.bench.model_peer import serve
def run(name, size, seconds):
    time.sleep(0.01)
    return {"elapsed_s": 0.5, "latencies_s": [0.25, 0.25]}
serve(run, int(sys.argv[1]))
"""
NO_BINARY = SERVER.replace("assert asked", "assert not length; assert asked")


def peer(
    name: str, script: str = SERVER, wire: Wire = "v2", *, lacks: tuple[str, ...] = ()
) -> Peer:
    return Peer(
        name=name, about="", part="v2", reference="real", ready_path="/", wire=wire, lacks=lacks,
        command=("{python}", "-c", script.replace("{", "{{").replace("}", "}}"), "{port}",
                 "{grpc_port}"),
    )  # fmt: skip


@pytest.fixture
def three_loads(monkeypatch: pytest.MonkeyPatch) -> Sequence[InferLoad]:
    """One load for each wire, without a long warm-up."""
    loads = tuple(load for load in LOADS if load.model == "mlp" and load.concurrency == 1)
    monkeypatch.setattr(v2_part, "LOADS", loads)
    monkeypatch.setattr(v2_part, "_WARM_UP_S", 0.1)
    return loads


@pytest.fixture
def graphs(tmp_path: Path) -> Path:
    """A folder of models that were made before."""
    folder = tmp_path / "graphs"
    folder.mkdir()
    (folder / ANSWERS).write_text(json.dumps({"mlp": [0.5, 0.25], "minilm": [0.5, 0.25]}))
    return folder


def measure(tmp_path: Path, *peers: Peer) -> list[Outcome]:
    plan = SuitePlan(
        peers=peers, out=tmp_path, graphs=tmp_path / "graphs", runs=1, seconds=1, ready_s=30,
        use_wrk=False,
    )  # fmt: skip
    return run_suite(plan, lambda _: None)


def test_every_wire_is_measured_and_compared_with_the_bare_models(
    tmp_path: Path, three_loads: Sequence[InferLoad], graphs: Path
):
    outcomes = measure(tmp_path, peer("real"), peer("bare", MODELS, "model"))
    assert [outcome.failures for outcome in outcomes] == [[], []]
    real, bare = outcomes
    assert [load.load for load in real.loads] == [load.label for load in three_loads]
    for load, result in zip(three_loads, real.loads, strict=True):
        (run,) = result.runs
        assert run.errors == {}
        assert run.requests_per_s
        assert (run.texts_per_s, run.ceiling) == (run.requests_per_s, load.ceiling)
        assert run.server_cpu_s
    assert [found.runs[0].driver for found in real.loads] == ["aiohttp", "aiohttp", "grpc.aio"]
    assert {load.load: load.median("texts_per_s") for load in bare.loads} == {
        f"{model} batches of {size}": size * 4.0
        for model in ("mlp", "minilm")
        for size in (1, 8, 32)
    }
    (found,) = (row for row in comparisons(outcomes) if row["load"] == "mlp gRPC c=1")
    assert found["of_ceiling"] == pytest.approx(
        (real.load("mlp gRPC c=1").median("texts_per_s") or 0) / 4.0
    )
    draw_suite(outcomes, tmp_path / "results.png")
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_a_wire_that_a_server_is_known_to_lack_is_shown_and_no_failure(
    tmp_path: Path,
    three_loads: Sequence[InferLoad],
    graphs: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(v2_part, "LOADS", three_loads[:2])
    (outcome,) = measure(tmp_path, peer("old", NO_BINARY, lacks=("binary",)))
    assert outcome.failures == []
    assert dict(outcome.load("mlp REST binary c=1").errors) == {
        "not supported: no answer (ServerDisconnectedError)": 1
    }
    assert outcome.load("mlp REST JSON c=1").median("requests_per_s")
    console = Console(width=250, file=StringIO(), record=True)
    console.print(suite_tables([outcome]))
    assert "not supported" in console.export_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("NUMBERS = [0.5", "NUMBERS = [0.6"), "REST JSON c=1: the numbers are not the model's"),
        (('"<2f", *NUMBERS', '"<2f", 1, 2'), "REST binary c=1: the numbers are not the model's"),
        (("assert asked.raw", "1 / 0; assert asked.raw"), "mlp gRPC c=1: grpc_unknown"),
    ],
)
def test_a_server_that_answers_with_something_else_is_a_failure(
    tmp_path: Path,
    three_loads: Sequence[InferLoad],
    graphs: Path,
    change: tuple[str, str],
    message: str,
):
    assert change[0] in SERVER
    (outcome,) = measure(tmp_path, peer("real", SERVER.replace(*change)))
    assert message in outcome.failures[0]


def test_models_are_made_first_and_what_stops_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "config.json").write_text("{}")
    package = tmp_path / "site/openvino"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('no graphs today')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}:{Path(__file__).parents[3]}")
    plan = SuitePlan(
        peers=(peer("real"),), out=tmp_path, embedder=tmp_path, graphs=tmp_path / "none"
    )
    with pytest.raises(BenchError, match=r"the models can't be made.*\n.*no graphs today"):
        run_suite(plan, lambda _: None)


@pytest.mark.parametrize("name", ["kserve", "mlserver"])
def test_missing_environment_is_one_line_that_says_how_to_build_it(
    tmp_path: Path, graphs: Path, name: str
):
    none = tmp_path / "none"
    plan = SuitePlan(
        peers=choose([name], None), out=tmp_path, graphs=graphs, kserve=none, mlserver=none
    )
    with pytest.raises(BenchError, match=rf"no environment .*; build it with: make {name}-peer$"):
        plan.check()


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("ours-v2", {}),
        ("ours-v2-replica", {"placement": {"num_cpus": 1}}),
        (
            "ours-v2-replicas",
            {"placement": {"num_cpus": 1}, "deployment": {"num_replicas": 2}},
        ),
    ],
)
def test_our_config_names_the_models_that_the_bench_made_and_has_as_many_replicas_as_asked_for(
    tmp_path: Path, name: str, changed: dict[str, object]
):
    configs = Path(__file__).parents[3] / "configs/bench"
    (ours,) = choose([name], "v2")
    plan = SuitePlan(peers=(ours,), out=tmp_path, configs=configs, graphs=tmp_path / "graphs")
    written = _config(plan, ours)
    assert written is not None
    content, shipped = (yaml.safe_load(path.read_text()) for path in (written, configs / "v2.yaml"))
    args = content["applications"][0]["args"]
    assert args["models_dir"] == str(tmp_path / "graphs")
    args["models_dir"] = shipped["applications"][0]["args"]["models_dir"]
    shipped["applications"][0]["args"] |= changed
    assert content == shipped
    OpenVINOApp.model_validate(args)


def test_several_replicas_are_many_times_a_server_that_is_measured_too(
    tmp_path: Path, three_loads: Sequence[InferLoad], graphs: Path
):
    one, two = choose(["ours-v2-replica", "ours-v2-replicas"], None)
    as_ours = [replace(peer("x"), name=known.name, replicas=known.replicas,
                       one_replica=known.one_replica) for known in (one, two)]  # fmt: skip
    outcomes = measure(tmp_path, *as_ours)
    for load in three_loads:
        alone, both = (found for found in comparisons(outcomes) if found["load"] == load.label)
        assert "scaling" not in alone
        costs = [outcome.load(load.label).median("server_cpu_s") for outcome in outcomes]
        assert both["scaling"] == pytest.approx(2 * (costs[0] or 0) / (costs[1] or 1))
