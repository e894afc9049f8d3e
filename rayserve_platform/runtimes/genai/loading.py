"""A model's files to a pipeline that batches continuously."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openvino
import openvino_genai

from rayserve_platform.core.errors import PlatformError
from rayserve_platform.formats.llm import IR, locate_llm
from rayserve_platform.formats.template import read_template
from rayserve_platform.formats.weights import unusable
from rayserve_platform.runtimes.genai.cache import Cache, measure
from rayserve_platform.runtimes.genai.examiner import Examiner
from rayserve_platform.runtimes.genai.texts import Texts
from rayserve_platform.runtimes.genai.tokenizer import tokenizer_folder
from rayserve_platform.settings.genai import GenAIApp

log = logging.getLogger("rayserve.genai")

DEFAULT_LENGTH = 2048
"""For models that name no length, as TGIS (router, `max_sequence_length`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model that can be asked.

    Args:
        pipeline: the library's.
        cache: of the pipeline.
        tokenizer_path: the folder that the tokenizer was read from.
        defaults: the model's own generation config.
        end_ids: its end-of-text tokens.
    """

    pipeline: Any
    cache: Cache
    tokenizer_path: Path
    texts: Texts
    examiner: Examiner
    defaults: Any
    end_ids: frozenset[int]
    max_model_len: int


def load(path: Path, settings: GenAIApp) -> Loaded:
    """Load a model. Blocks, for seconds and more.

    Raises:
        PlatformError: INVALID_ARGUMENT for files that can't be loaded, or a length that the model
            can't have.
    """
    files = locate_llm(str(path))
    longest = _length(files.length, settings.engine.max_model_len)
    try:
        tokenizer_path = tokenizer_folder(files.path)
        tokenizer = openvino_genai.Tokenizer(str(tokenizer_path))
        pipeline = openvino_genai.ContinuousBatchingPipeline(
            str(files.path),
            tokenizer,
            _scheduler(settings),
            settings.engine.device,
            **properties(settings),
        )
        cache = measure(pipeline)
    except PlatformError:
        raise
    except Exception as error:  # whatever its C++ code throws: std::out_of_range is an IndexError
        log.exception("the model can't be loaded")
        raise unusable("OpenVINO GenAI can't load the model; the log says why") from error
    if cache.tokens < longest:
        log.warning(
            "max_model_len is %d instead of %d: kv_cache_gib has no room for more tokens",
            cache.tokens,
            longest,
        )
        longest = cache.tokens
    defaults = pipeline.get_config()
    ends = {*defaults.stop_token_ids, defaults.eos_token_id, tokenizer.get_eos_token_id()}
    end_ids = frozenset(i for i in ends if i >= 0)
    texts = Texts(tokenizer, template=read_template(settings.chat_template), longest=longest)
    logits = _logits(files.path) or texts.vocabulary
    return Loaded(
        pipeline=pipeline,
        cache=cache,
        tokenizer_path=tokenizer_path,
        texts=texts,
        examiner=Examiner(tokenizer, logits=logits, end_ids=end_ids),
        defaults=defaults,
        end_ids=end_ids,
        max_model_len=longest,
    )


def _length(made_for: int | None, asked: int | None) -> int:
    if made_for is not None and asked is not None and asked > made_for:
        raise unusable(
            f"engine.max_model_len: {asked} is more than the {made_for} positions of the model"
        )
    return asked or made_for or DEFAULT_LENGTH


def _logits(path: Path) -> int | None:
    """Return how many logits a token has; None if they are as many as the tokenizer has tokens.

    They are in a GGUF file; other models may have been padded to a rounder number.
    """
    if path.is_file():
        return None
    last = openvino.Core().read_model(path / IR).output("logits").get_partial_shape()[-1]
    return last.get_length() if last.is_static else None


def _scheduler(settings: GenAIApp) -> Any:
    config = openvino_genai.SchedulerConfig()
    config.cache_size = settings.kv_cache_gib
    config.max_num_seqs = settings.engine.max_batch_size
    config.max_num_batched_tokens = settings.engine.prefill_tokens
    config.dynamic_split_fuse = True
    # With it (2026.4.1) requests that begin alike write into one block: answers get mixed up.
    config.enable_prefix_caching = False
    return config


def properties(settings: GenAIApp) -> dict[str, Any]:
    """Return what the device is told."""
    engine = settings.engine
    found: dict[str, Any] = {}
    if engine.device.startswith("CPU"):
        found["INFERENCE_NUM_THREADS"] = settings.threads
        found["sampler_num_threads"] = settings.threads
    if engine.precision != "auto":
        found["INFERENCE_PRECISION_HINT"] = engine.precision
        found["KV_CACHE_PRECISION"] = engine.precision
    if not engine.dynamic_quantization:
        found["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0
    if engine.cache_dir is not None:
        found["CACHE_DIR"] = engine.cache_dir
    return found | engine.plugin_config
