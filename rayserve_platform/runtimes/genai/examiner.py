"""Guides are tried before they come near the pipeline.

One that it can't compile makes a step fail, that is every request in it, and every step after that
(2026.4, `Sampler::create_logit_processor`).
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
from rayserve_platform.runtimes.genai.sampling import guide

log = logging.getLogger("rayserve.genai")

LAST = 0
"""The token that the examiner's model likes least; only a guide that allows no other brings it."""
_PLACE = re.compile(r"^.*\.(?:cc|cpp|h):\d+: ", re.DOTALL)
"""What the library puts in front of a reason: the time, and the line of its source."""
LONGEST_REASON = 200


class Examiner:
    """Lets a model that takes all tokens for equal write one token by a guide.

    The tokenizer is the pipeline's own, and keeps what it compiles: the pipeline finds it there.

    Args:
        tokenizer: the pipeline's.
        logits: how many the model has for a token.
        end_ids: end-of-text tokens.
    """

    def __init__(self, tokenizer: Any, *, logits: int, end_ids: frozenset[int]) -> None:
        self._end_ids = end_ids
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "model.xml"
            openvino.save_model(_indifferent(logits), path, compress_to_fp16=False)
            weights = np.fromfile(path.with_suffix(".bin"), np.uint8)
            self._pipeline = openvino_genai.LLMPipeline(
                path.read_text(),
                openvino.Tensor(weights),
                tokenizer,
                "CPU",
                ATTENTION_BACKEND="SDPA",
                INFERENCE_NUM_THREADS=1,
            )

    def check(self, guided: Guided) -> None:
        """Compile a guide.

        Raises:
            PlatformError: INVALID_ARGUMENT saying what is wrong with it.
        """
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = 1
        config.eos_token_id = min(self._end_ids, default=-1)
        config.stop_token_ids = set(self._end_ids)
        config.structured_output_config = guide(guided)
        prompt = openvino.Tensor(np.array([[LAST]], dtype=np.int64))
        try:
            [[token]] = self._pipeline.generate(prompt, config).tokens
        except RuntimeError as error:
            log.warning("a guide was refused: %s", error)
            raise unfit(guided, _reason(error)) from error
        if token == LAST and LAST not in self._end_ids:
            raise unfit(guided, "it allows nothing that this model can write")


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


def _reason(error: RuntimeError) -> str:
    """Return the library's own words, which name the place in the caller's text."""
    said = _PLACE.sub("", str(error).strip()).partition("\n")[0]
    return said[:LONGEST_REASON].rstrip(". ") if said.isprintable() else "it is not valid"
