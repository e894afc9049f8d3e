"""Guided decoding by xgrammar, where it is installed."""

import importlib.util
import json
import re
from typing import Any

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import Guided

PLACE = re.compile(r"^\[[\d:]+\] \S+:\d+: (Check failed: \(.*?\) is false: )?")


class Guides:
    """Compiles what answers must match. Compiling takes up to seconds: for a worker thread.

    Args:
        tokenizer: transformers'.
        vocabulary: the number of logits, which may be more than the tokenizer's tokens.
        end_ids: tokens that may follow a complete answer.
    """

    def __init__(self, tokenizer: Any, *, vocabulary: int, end_ids: tuple[int, ...]) -> None:
        self._compiler: Any = None
        if importlib.util.find_spec("xgrammar") is None or not end_ids:
            return
        import xgrammar

        info = xgrammar.TokenizerInfo.from_huggingface(
            tokenizer, vocab_size=vocabulary, stop_token_ids=list(end_ids)
        )
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=1)

    def compile(self, guided: Guided) -> Any:
        """Compile a guide; results are cached.

        Raises:
            PlatformError: UNIMPLEMENTED where xgrammar is missing, INVALID_ARGUMENT for a schema,
                pattern or grammar that it can't read.
        """
        if self._compiler is None:
            raise PlatformError(
                Code.UNIMPLEMENTED,
                "The torch runtime does not support 'guided' here: it takes the package xgrammar "
                "and a model with an end-of-text token.",
                param="guided",
            )
        try:
            return self._compiled(guided)
        except (RuntimeError, ValueError) as error:
            raise PlatformError(
                Code.INVALID_ARGUMENT,
                f"The {guided.kind.replace('_', ' ')} of 'guided' can't be used: {_said(error)}",
                param="guided",
            ) from error

    def _compiled(self, guided: Guided) -> Any:
        text = guided.value if isinstance(guided.value, str) else ""
        match guided.kind:
            case "json":
                return self._compiler.compile_builtin_json_grammar()
            case "json_schema":
                return self._compiler.compile_json_schema(text)
            case "regex":
                return self._compiler.compile_regex(text)
            case "grammar":
                return self._compiler.compile_grammar(text)
            case "choice":
                if len(guided.value) == 0:
                    raise ValueError("there is nothing to choose from")
                # A JSON string is a string of xgrammar's EBNF as well.
                options = " | ".join(json.dumps(o, ensure_ascii=False) for o in guided.value)
                return self._compiler.compile_grammar(f"root ::= {options}")


def processor(compiled: Any) -> Any:
    """Return a logits processor that keeps one answer to a compiled guide."""
    from xgrammar.contrib.hf import LogitsProcessor

    return LogitsProcessor(compiled)


def _said(error: Exception) -> str:
    """Return what xgrammar says is wrong, without the place in its C++ where it noticed."""
    return PLACE.sub("", str(error)).strip()[:300]
