"""OpenVINO GenAI's own pipeline in a process of its own, without any server: the ceiling.

`python -m rayserve_platform.bench.genai_peer --model FILE --threads N --port PORT` loads a GGUF
file with the options of our own configs. POST /CLIENTS/REQUESTS/TOKENS answers so many of the
built-in prompts with so many tokens each, so many at a time. What comes back are the seconds that
it took and, for each request, those from its start to each token; no HTTP, template or tokenizer is
in the measured time. Any GET answers 200.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from itertools import count, cycle, islice
from time import perf_counter
from typing import Any

from rayserve_platform.bench.model_peer import serve
from rayserve_platform.bench.prompts import BUILT_IN


def properties(threads: int) -> dict[str, object]:
    """Return what OpenVINO is told: our engine's defaults."""
    return {
        "INFERENCE_NUM_THREADS": threads,
        "sampler_num_threads": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "KV_CACHE_PRECISION": "f32",
    }


def scheduler() -> Any:
    """Return what the pipeline's scheduler is told: our engine's defaults."""
    import openvino_genai

    config = openvino_genai.SchedulerConfig()
    config.cache_size = 1
    config.max_num_seqs = 64
    config.max_num_batched_tokens = 512
    config.dynamic_split_fuse = True
    config.enable_prefix_caching = False
    return config


@dataclass(slots=True)
class Answer:
    """An answer that is being written, and when its tokens came."""

    handle: Any
    began_s: float
    times_s: list[float] = field(default_factory=list)


class Pipeline:
    """The pipeline, and the prompts as the chat template writes them."""

    def __init__(self, model: str, threads: int) -> None:
        import openvino_genai

        tokenizer = openvino_genai.Tokenizer(model)
        self.prompts = [_tokens(tokenizer, prompt) for prompt in BUILT_IN]
        self._library: Any = openvino_genai
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            model, tokenizer, scheduler(), "CPU", **properties(threads)
        )
        self._numbers = count()

    def run(self, clients: int, requests: int, tokens: int) -> dict[str, object]:
        """Write so many answers; the next one begins as soon as one has ended."""
        config = self._library.GenerationConfig()
        config.max_new_tokens = tokens
        config.ignore_eos = True
        waiting = islice(cycle(self.prompts), requests)
        answers: list[Answer] = []
        writing: list[Answer] = []
        began_s = perf_counter()
        while len(answers) < requests or writing:
            for prompt in islice(waiting, clients - len(writing)):
                writing.append(self._begin(prompt, config))
                answers.append(writing[-1])
            self._pipeline.step()
            now_s = perf_counter()
            writing = [answer for answer in writing if self._goes_on(answer, now_s)]
        elapsed_s = perf_counter() - began_s
        return {"elapsed_s": elapsed_s, "times_s": [answer.times_s for answer in answers]}

    def _begin(self, prompt: Any, config: Any) -> Answer:
        began_s = perf_counter()
        return Answer(self._pipeline.add_request(next(self._numbers), prompt, config), began_s)

    def _goes_on(self, answer: Answer, now_s: float) -> bool:
        """Note an answer's new tokens; return whether more will come."""
        while answer.handle.can_read():
            for output in answer.handle.read().values():
                answer.times_s += [now_s - answer.began_s] * len(output.generated_ids)
        running: bool = answer.handle.get_status() == self._library.GenerationStatus.RUNNING
        return running


def _tokens(tokenizer: Any, prompt: str) -> Any:
    turns = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(turns, add_generation_prompt=True)
    return tokenizer.encode(text, add_special_tokens=False).input_ids


def main() -> None:
    """Load the model and do runs until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="GGUF file")
    parser.add_argument("--threads", required=True, type=int, help="threads of computation")
    parser.add_argument("--port", required=True, type=int, help="HTTP port on the loopback")
    arguments = parser.parse_args()
    pipeline = Pipeline(arguments.model, arguments.threads)

    def run(clients: str, requests: str, tokens: str) -> dict[str, object]:
        return pipeline.run(int(clients), int(requests), int(tokens))

    serve(run, arguments.port)


if __name__ == "__main__":
    main()
