import json
from io import StringIO
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from rayserve_platform.bench.calls import Generation
from rayserve_platform.bench.charts import draw_suite
from rayserve_platform.bench.outcome import Outcome, rows
from rayserve_platform.bench.peer import Peer, Wire
from rayserve_platform.bench.prompts import BUILT_IN
from rayserve_platform.bench.rpc import Generated
from rayserve_platform.bench.suite import run_suite
from rayserve_platform.bench.suite_plan import SuitePlan
from rayserve_platform.bench.tables import suite_tables
from rayserve_platform.bench.tgis_part import MODES, Mode, tgis_call
from rayserve_platform.pb import generation_pb2 as pb
from tests.unit.bench.scripted import measured, scripted

# OpenAI's completions and TGIS side by side, each without the other's rules of the wire.
SERVER = """
import concurrent.futures, grpc, http.server, json, sys
from rayserve_platform.pb import generation_pb2 as pb, generation_pb2_grpc as rpc
class Answer(http.server.BaseHTTPRequestHandler):
    def log_message(self, *words):
        pass
    def do_GET(self):
        self.answer("application/json", json.dumps({"data": [{"id": "m"}]}))
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/v1/completions" and asked["min_tokens"] == asked["max_tokens"]
        choices, usage = [{"text": "x"}], {"completion_tokens": asked["max_tokens"]}
        if not asked["stream"]:
            found = json.dumps({"choices": choices, "usage": usage})
            return self.answer("application/json", found)
        events = [{"choices": choices}, {"choices": choices}, {"choices": [], "usage": usage}]
        lines = ["data: " + json.dumps(event) for event in events] + ["data: [DONE]", "", ""]
        self.answer("text/event-stream", "\\n\\n".join(lines))
    def answer(self, kind, body):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())
class Service(rpc.GenerationServiceServicer):
    def Generate(self, asked, context):
        [request] = asked.requests
        return pb.BatchedGenerationResponse(responses=[self.told(asked)])
    def GenerateStream(self, asked, context):
        yield pb.GenerationResponse(input_token_count=3)
        for count in range(1, asked.params.stopping.max_new_tokens):
            yield pb.GenerationResponse(generated_token_count=count, text="x")
        yield self.told(asked)
    def told(self, asked):
        stopping = asked.params.stopping
        assert stopping.max_new_tokens == stopping.min_new_tokens
        return pb.GenerationResponse(generated_token_count=stopping.max_new_tokens, text="x")
server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
rpc.add_GenerationServiceServicer_to_server(Service(), server)
server.add_insecure_port("127.0.0.1:" + sys.argv[2])
server.start()
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


def peer(name: str, wire: Wire, script: str = SERVER) -> Peer:
    return scripted(name, script, "{port}", "{grpc_port}", part="tgis", wire=wire)


def test_both_ways_are_measured_at_each_concurrency_and_compared(tmp_path: Path):
    outcomes = measured(tmp_path, peer("real", "openai"), peer("ours", "tgis"), max_tokens=5)
    loads = ["unary c=1", "unary c=2", "stream c=1", "stream c=2"]
    for outcome, driver in zip(outcomes, ("aiohttp", "grpc.aio"), strict=True):
        assert outcome.failures == []
        assert [load.load for load in outcome.loads] == loads
        for load, requests in zip(outcome.loads, (3, 6, 3, 6), strict=True):
            assert len(load.runs) == 2
            for run in load.runs:
                assert (run.succeeded, dict(run.errors), run.driver) == (requests, {}, driver)
                assert run.tokens_from == "usage"
                assert run.output_tokens_per_s == pytest.approx(5 * requests / run.elapsed_s)
                assert (run.ttft_p50_s is not None) is load.load.startswith("stream")
    compared = list(rows(outcomes, "tgis", ["output_tokens_per_s"]))
    assert [row.result.load for row in compared if row.server == "ours"] == loads
    assert all(row.ratios["output_tokens_per_s"] for row in compared)
    draw_suite(outcomes, tmp_path / "results.png")
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_says_what_stands_for_the_adapter():
    console = Console(width=200, file=StringIO(), record=True)
    console.print(suite_tables([Outcome(name="o", about="", part="tgis", reference="o")]))
    assert "vLLM's own OpenAI server, which stands for vllm-tgis-adapter" in console.export_text()


@pytest.mark.parametrize(
    ("wire", "change", "message"),
    [
        ("tgis", ("count=stopping.max_new_tokens", "count=1"), "16 answers have 16 tokens in all"),
        ("openai", ('asked["max_tokens"]}', "1}"), "16 answers have 16 tokens in all, not 5 each"),
        ("tgis", ("responses=[self.told(asked)]", ""), "no request succeeded (bad_answer x1)"),
        ("tgis", ("[request] = asked", "[] = asked"), "no request succeeded (grpc_unknown x1)"),
    ],
)
def test_a_server_that_does_not_generate_what_is_asked_is_a_failure(
    tmp_path: Path, wire: Wire, change: tuple[str, str], message: str
):
    assert change[0] in SERVER
    plan = SuitePlan(
        peers=(peer("real", wire, SERVER.replace(*change)),), out=tmp_path, runs=1,
        concurrency=(1,), max_tokens=5, ready_s=4,
    )  # fmt: skip
    (outcome,) = run_suite(plan, lambda _: None)
    assert message in outcome.failures[0]


@pytest.mark.parametrize(("mode", "method"), [("unary", "Generate"), ("stream", "GenerateStream")])
def test_requests_are_tgis_own(mode: Mode, method: str):
    call = tgis_call(mode, BUILT_IN, 64, target="h:2", timeout_s=3)
    service = pb.DESCRIPTOR.services_by_name["GenerationService"]
    assert call.method == f"/{service.full_name}/{method}"
    assert (call.stream, call.target, call.timeout_s) == (mode == "stream", "h:2", 3)
    params = pb.Parameters(
        method=pb.GREEDY,
        stopping=pb.StoppingCriteria(max_new_tokens=64, min_new_tokens=64),
    )
    requests = [pb.GenerationRequest(text=prompt) for prompt in BUILT_IN]
    if mode == "stream":
        singles = [pb.SingleGenerationRequest.FromString(body) for body in call.bodies]
        assert singles == [
            pb.SingleGenerationRequest(request=one, params=params) for one in requests
        ]
    else:
        batches = [pb.BatchedGenerationRequest.FromString(body) for body in call.bodies]
        assert batches == [
            pb.BatchedGenerationRequest(requests=[one], params=params) for one in requests
        ]


def test_answers_are_read_as_tgis_means_them():
    told = pb.GenerationResponse(
        generated_token_count=64, text="x", input_token_count=300,
        tokens=[pb.TokenInfo(text="x", logprob=-0.5)],
    )  # fmt: skip
    whole, stream = (tgis_call(mode, ("a",), 64, target="h", timeout_s=1) for mode in MODES)
    assert whole.read is not None
    assert stream.read is not None
    batch = pb.BatchedGenerationResponse(responses=[told])
    assert whole.read(batch.SerializeToString()) == Generated(tokens=64, text=True)
    assert stream.read(told.SerializeToString()) == Generated(tokens=64, text=True)
    first = pb.GenerationResponse(input_token_count=300)
    assert stream.read(first.SerializeToString()) == Generated(tokens=0, text=False)
    with pytest.raises(ValueError, match="no response"):
        whole.read(b"")


def test_the_reference_is_bound_from_below_only_where_that_is_asked():
    exact = json.loads(Generation(max_tokens=64, min_tokens=64).body("m", "p"))
    assert (exact["max_tokens"], exact["min_tokens"]) == (64, 64)
    assert "min_tokens" not in json.loads(Generation().body("m", "p"))


@pytest.mark.parametrize("topology", ["colocated", "separate"])
def test_the_engine_is_that_of_the_llm_part(topology: str):
    configs = Path(__file__).parents[3] / "configs/bench"
    over_tgis, llm = (
        yaml.safe_load((configs / name).read_text())
        for name in (f"tgis-{topology}.yaml", f"{topology}.yaml")
    )
    ingress = over_tgis["applications"][0]["args"].pop("ingress")
    assert ingress["protocols"][0] == "tgis"
    assert over_tgis.pop("grpc_options")["port"] == llm.pop("grpc_options")["port"]
    assert over_tgis == llm
