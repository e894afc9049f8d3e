import json
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from rayserve_platform.bench.charts import draw_suite
from rayserve_platform.bench.errors import BenchError
from rayserve_platform.bench.genai_peer import properties, scheduler
from rayserve_platform.bench.outcome import rows
from rayserve_platform.bench.peer import Peer, Wire
from rayserve_platform.bench.prompts import BUILT_IN
from rayserve_platform.bench.suite import run_suite
from rayserve_platform.bench.suite_plan import SuitePlan, choose
from rayserve_platform.bench.tables import suite_tables
from rayserve_platform.cli.bench import QUICKSTART
from rayserve_platform.formats.source import find
from rayserve_platform.runtimes.genai import loading
from rayserve_platform.settings.genai import GenAIApp
from tests.unit.bench.scripted import measured, scripted

CONFIGS = Path(__file__).parents[3] / "configs/bench"
TOPOLOGIES = ["colocated", "separate"]

# Streams chats of as many tokens as are asked for, in chunks of two.
SERVER = """
import http.server, json, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def log_message(self, *words):
        pass
    def do_GET(self):
        self.answer("application/json", json.dumps({"data": [{"id": "m"}]}))
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/v1/chat/completions" and asked["ignore_eos"] and asked["stream"]
        tokens = asked["max_tokens"]
        events = [{"choices": [{"delta": {"content": "xx"}}]}] * (tokens // 2)
        events.append({"choices": [], "usage": {"completion_tokens": tokens}})
        lines = ["data: " + json.dumps(event) for event in events] + ["data: [DONE]", "", ""]
        self.answer("text/event-stream", "\\n\\n".join(lines))
    def answer(self, kind, body):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""
# The real thing around a pipeline that takes 2 s to the first token and then 1 s for each, twice as
# long for two at a time.
PIPELINE = """
import sys
from rayserve_platform.bench.model_peer import serve
def run(clients, requests, tokens):
    slow = int(clients)
    times_s = [slow * (2.0 + number) for number in range(int(tokens))]
    return {"elapsed_s": times_s[-1] * int(requests) / slow, "times_s": [times_s] * int(requests)}
serve(run, int(sys.argv[1]))
"""

REAL = """
import json, pathlib, sys
from rayserve_platform.bench.genai_peer import Pipeline
from rayserve_platform.bench.prompts import BUILT_IN
from rayserve_platform.core.messages import Chat, Turn
from rayserve_platform.runtimes.genai.texts import Texts
import openvino_genai
from rayserve_platform.runtimes.genai.tokenizer import tokenizer_folder
class Watched:
    def __init__(self, pipeline):
        self.pipeline, self.asked, self.steps = pipeline, [], 0
    def add_request(self, number, prompt, config):
        self.asked.append(ids(prompt))
        return self.pipeline.add_request(number, prompt, config)
    def step(self):
        self.steps += 1
        self.pipeline.step()
def ids(prompt):
    return prompt.data.reshape(-1).tolist()
model = pathlib.Path(sys.argv[1])
made = Pipeline(str(model), 2)
library, runs = made._pipeline, {}
for clients in (1, 2, 5):
    made._pipeline = watched = Watched(library)
    runs[clients] = made.run(clients, 5, 4) | {"asked": watched.asked, "steps": watched.steps}
tokenizer = openvino_genai.Tokenizer(str(tokenizer_folder(model)))
texts = Texts(tokenizer, template=None, longest=2048)
chats = [Chat(turns=(Turn(role="user", content=prompt),)) for prompt in BUILT_IN]
ours = [texts.encode(chat, special=False) for chat in chats]
print(json.dumps({"runs": runs, "prompts": [ids(prompt) for prompt in made.prompts], "ours": ours}))
"""


def peer(name: str, script: str = SERVER, wire: Wire = "openai") -> Peer:
    return scripted(name, script, "{port}", part="genai", wire=wire)


def test_tokens_are_compared_with_the_reference_and_with_the_pipeline(tmp_path: Path):
    outcomes = measured(
        tmp_path, peer("real"), peer("ours"), peer("pipeline", PIPELINE, wire="model"), max_tokens=6
    )
    assert [outcome.failures for outcome in outcomes] == [[], [], []]
    real, ours, pipeline = outcomes
    for outcome in (real, ours):
        assert [load.load for load in outcome.loads] == ["c=1", "c=2"]
        for result, requests in zip(outcome.loads, (3, 6), strict=True):
            for run in result.runs:
                assert (run.succeeded, dict(run.errors), run.tokens_from) == (requests, {}, "usage")
                assert run.output_tokens_per_s == pytest.approx(6 * requests / run.elapsed_s)
                assert run.ttft_p50_s
    found = {
        (row.server, row.result.load): row
        for row in rows(outcomes, "genai", ["output_tokens_per_s"])
    }
    for load in ("c=1", "c=2"):
        tokens, theirs, highest = (
            outcome.load(label).median("output_tokens_per_s") or 0.0
            for outcome, label in ((ours, load), (real, load), (pipeline, f"in process {load}"))
        )
        row = found["ours", load]
        assert row.ratios["output_tokens_per_s"] == pytest.approx(tokens / theirs)
        assert row.of_ceiling == pytest.approx(tokens / highest)
    draw_suite(outcomes, tmp_path / "results.png")
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_the_pipeline_is_measured_by_when_each_token_came(tmp_path: Path):
    (outcome,) = measured(tmp_path, peer("pipeline", PIPELINE, wire="model"), max_tokens=6)
    assert outcome.failures == []
    assert [load.load for load in outcome.loads] == ["in process c=1", "in process c=2"]
    for load, slow, requests in zip(outcome.loads, (1, 2), (3, 6), strict=True):
        assert len(load.runs) == 2
        for run in load.runs:
            assert (run.succeeded, run.driver) == (requests, "in process")
            assert run.output_tokens_per_s == pytest.approx(6 * slow / (7.0 * slow))
            assert (run.ttft_p50_s, run.ttft_p99_s) == (2.0 * slow, 2.0 * slow)
            assert (run.itl_p50_s, run.tpot_p50_s) == (slow, slow)
            assert run.latency_p50_s == 7.0 * slow


def test_the_table_shows_the_share_of_the_pipeline(tmp_path: Path):
    outcomes = measured(
        tmp_path, peer("real"), peer("pipeline", PIPELINE, wire="model"), max_tokens=6
    )
    console = Console(width=250, file=StringIO(), record=True)
    console.print(suite_tables(outcomes))
    text = console.export_text()
    assert "share of the tokens/s of GenAI's own pipeline" in text
    assert all(heading in text for heading in ("TTFT", "of the model"))


@pytest.mark.parametrize(
    ("script", "wire", "change", "message"),
    [
        (SERVER, "openai", ('"completion_tokens": tokens', '"completion_tokens": 2'),
         "real, c=1: 3 answers have 6 tokens in all, not 6 each"),
        (PIPELINE, "model", ("range(int(tokens))", "range(2)"),
         "real, in process c=2: 16 answers have 32 tokens in all, not 6 each"),
        (PIPELINE, "model", ("[times_s] * int(requests)", "[times_s, []]"),
         "real did not say when its tokens came"),
        (PIPELINE, "model", ('"times_s": ', '"latencies_s": '),
         "real did not say when its tokens came"),
    ],
)  # fmt: skip
def test_a_server_that_does_not_generate_what_is_asked_is_a_failure(
    tmp_path: Path, script: str, wire: Wire, change: tuple[str, str], message: str
):
    assert change[0] in script
    (outcome,) = measured(tmp_path, peer("real", script.replace(*change), wire), max_tokens=6)
    assert outcome.failures == [f"round 1: {message}"]


def test_missing_model_is_refused_before_anything_starts(tmp_path: Path):
    pipeline = choose(["openvino-genai"], None)
    for none in (None, tmp_path / "none.gguf"):
        with pytest.raises(BenchError, match="needs the LLM as a GGUF file: --gguf FILE"):
            run_suite(SuitePlan(peers=pipeline, out=tmp_path, gguf=none), print)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_only_the_engine_differs_from_the_llm_part(topology: str):
    ours, llm = (
        yaml.safe_load((CONFIGS / name).read_text())
        for name in (f"genai-{topology}.yaml", f"{topology}.yaml")
    )
    for config in (ours, llm):
        (app,) = config["applications"]
        del app["import_path"], app["args"]["engine"]
    assert ours == llm


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_pipeline_has_the_options_of_our_engine(topology: str):
    config = yaml.safe_load((CONFIGS / f"genai-{topology}.yaml").read_text())
    settings = GenAIApp.model_validate(config["applications"][0]["args"])
    (pipeline,) = choose(["openvino-genai"], None)
    threads = pipeline.command[pipeline.command.index("--threads") + 1]
    assert properties(int(threads)) == loading.properties(settings)
    assert scheduler().to_string() == loading._scheduler(settings).to_string()


@pytest.fixture(scope="module")
def real() -> Any:
    """What the real pipeline of SmolLM2 did, and the prompts of our engine.

    In a process of its own: once OpenVINO has replaced the main thread's stack for signals, the
    tests that send one to their own process may crash in its delivery.
    """
    done = subprocess.run(
        [sys.executable, "-c", REAL, str(find(QUICKSTART))], capture_output=True, text=True,
        check=True, timeout=300,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("clients", "steps"), [(1, 4 * 5), (2, 4 * 3), (5, 4)])
def test_the_real_pipeline_writes_so_many_answers_at_a_time_and_as_much_as_is_asked_for(
    real: Any, clients: int, steps: int
):
    run = real["runs"][str(clients)]
    answers, elapsed_s = run["times_s"], run["elapsed_s"]
    assert [len(times_s) for times_s in answers] == [4] * 5
    assert all(0 < first < last <= elapsed_s for first, *_, last in answers)
    assert run["steps"] == steps
    assert run["asked"] == real["prompts"][:5]


def test_the_pipeline_reads_the_prompts_that_our_engine_reads(real: Any):
    assert len(real["prompts"]) == len(BUILT_IN)
    assert real["prompts"] == real["ours"]
