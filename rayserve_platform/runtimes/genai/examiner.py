"""Guides are compiled before they come near the pipeline.

One that it can't compile makes a step fail, that is every request in it, and every step after that
(2026.4, `Sampler::create_logit_processor`); and all requests wait while a step compiles one.
"""

import logging
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai
from openvino import opset13 as ops

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import Guided
from rayserve_platform.runtimes.genai.form import to_structure

log = logging.getLogger("rayserve.genai")

LAST = 0
"""The token that the examiner's model likes least; only a guide that allows no other brings it."""
_PATTERN = re.compile(r"Regex parsing error at position \d+: [^\n]*")
_KNOWN = {
    "regex": _PATTERN,
    "json_schema": _PATTERN,
    "grammar": re.compile(r"EBNF \w+ error at line \d+, column \d+: [^\n]*"),
}
"""What the library says of a caller's text; all else that it says is of its own."""
LONGEST_REASON = 200
TOO_LARGE = "compiling it takes too much memory, or it is nested too deeply"


class Examiner:
    """Lets a model that takes all tokens for equal write one token by a guide.

    The tokenizer keeps what it compiles: its other pipelines find it there.

    Args:
        tokenizer: the library's.
        logits: how many the model has for a token.
        end_ids: end-of-text tokens.
    """

    def __init__(self, tokenizer: Any, *, logits: int, end_ids: frozenset[int]) -> None:
        self.logits = logits
        self._end_ids = end_ids
        self._pipeline = _pipeline(tokenizer, logits)
        self._other = _pipeline(tokenizer, logits + 1)

    def check(self, guided: Guided) -> None:
        """Compile a guide.

        Raises:
            PlatformError: INVALID_ARGUMENT saying what is wrong with it.
        """
        try:
            token = self._write(self._pipeline, guided)
        except MemoryError as error:
            raise unfit(guided, TOO_LARGE) from error
        except Exception as error:  # whatever its C++ code throws
            log.warning("a guide was refused: %s", error)
            raise unfit(guided, _reason(guided, error)) from error
        if token == LAST and LAST not in self._end_ids:
            raise unfit(guided, "it allows nothing that this model can write")

    def forget(self) -> None:
        """Forget what has been compiled; while no other thread lets the tokenizer's pipelines work.

        A tokenizer has no way to do so, but begins anew when the number of logits is another one
        (2026.4, `TokenizerImpl::get_structured_output_controller`).
        """
        for pipeline in (self._other, self._pipeline):
            self._write(pipeline, Guided(kind="json", value=""))

    def _write(self, pipeline: Any, guided: Guided) -> int:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = 1
        config.eos_token_id = min(self._end_ids, default=-1)
        config.stop_token_ids = set(self._end_ids)
        config.structured_output_config = to_structure(guided)
        prompt = openvino.Tensor(np.array([[LAST]], dtype=np.int64))
        [[token]] = pipeline.generate(prompt, config).tokens
        return int(token)


def _pipeline(tokenizer: Any, logits: int) -> Any:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.xml"
        openvino.save_model(_indifferent(logits), path, compress_to_fp16=False)
        weights = np.fromfile(path.with_suffix(".bin"), np.uint8)
        return openvino_genai.LLMPipeline(
            path.read_text(),
            openvino.Tensor(weights),
            tokenizer,
            "CPU",
            ATTENTION_BACKEND="SDPA",
            INFERENCE_NUM_THREADS=1,
        )


def _indifferent(logits: int) -> Any:
    """Return a model for which all tokens but `LAST` are as likely."""
    ids = _input("input_ids", [-1, -1], np.int64)
    others = [_input("attention_mask", [-1, -1], np.int64), _input("beam_idx", [-1], np.int32)]
    row = np.zeros(logits, np.float32)
    row[LAST] = -1e9
    size = ops.constant(np.array([logits], np.int64))
    shape = ops.concat([ops.shape_of(ids, output_type="i64"), size], 0)
    answer = ops.broadcast(ops.constant(row), shape)
    answer.output(0).set_names({"logits"})
    return openvino.Model([ops.result(answer)], [ids, *others], "indifferent")


def _input(name: str, shape: list[int], kind: Any) -> Any:
    made = ops.parameter(shape, kind, name=name)
    made.output(0).set_names({name})
    return made


def unfit(guided: Guided, reason: str) -> PlatformError:
    """Return the error for a guide that can't be used."""
    return PlatformError(
        Code.INVALID_ARGUMENT,
        f"The {guided.kind.replace('_', ' ')} of 'guided' can't be used: {reason}.",
        param="guided",
    )


def _reason(guided: Guided, error: Exception) -> str:
    """Return the library's own words if they name a place in the caller's text."""
    known = _KNOWN.get(guided.kind)
    said = known and known.search(str(error))
    if not said or not said[0].isprintable():
        return "it is not valid"
    return said[0][:LONGEST_REASON].rstrip(". ")
