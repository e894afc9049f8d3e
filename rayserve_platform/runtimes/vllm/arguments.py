"""Settings to vLLM's own argument namespace, through vLLM's own parser.

Its OpenAI server wants that namespace anyway, and its parser checks and converts every value.
"""

import argparse
import contextlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.entrypoints.launchers.launcher import validate_api_server_args
from vllm.exceptions import VLLMClientError
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
from vllm.utils.argparse_utils import FlexibleArgumentParser

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.runtimes.vllm.devices import engine_defaults
from rayserve_platform.settings.vllm import VLLMApp

NO_DOMAIN = "nothing-is-fetched.invalid"
"""Nobody's (RFC 2606)."""


def server_values(settings: VLLMApp, model_dir: Path, *, cpu: bool) -> dict[str, Any]:
    """Return every argument that differs from vLLM's own default, by its Python name."""
    given = dict(settings.engine)
    values = engine_defaults(given, settings.placement, cpu=cpu, model_dir=model_dir)
    values |= given | settings.frontend
    values |= {
        "model": str(model_dir),
        "served_model_name": [settings.model.id, *settings.model.aliases],
        "disable_uvicorn_access_log": True,
    }
    if settings.chat_template is not None:
        values["chat_template"] = settings.chat_template
    if settings.tool_parser is not None:
        values |= {"tool_call_parser": settings.tool_parser, "enable_auto_tool_choice": True}
    if settings.reasoning_parser is not None:
        values["reasoning_parser"] = settings.reasoning_parser
    # An empty list allows all; the ingress has fetched what it allows.
    values.setdefault("allowed_media_domains", [NO_DOMAIN])
    if settings.lora or settings.adapters_dir is not None:
        values["enable_lora"] = True
    if settings.lora:
        values["lora_modules"] = [m.model_dump(exclude_none=True) for m in settings.lora]
    return values


def parse(values: Mapping[str, Any]) -> argparse.Namespace:
    """Let vLLM's parser read `values`.

    Raises:
        PlatformError: INVALID_ARGUMENT with the parser's own words.
    """
    parser = make_arg_parser(FlexibleArgumentParser())
    argv = _command_line(parser, values)
    complaints = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaints):
            parsed = parser.parse_args(argv)
        validate_parsed_serve_args(parsed)
        _parsers(parsed)
    except SystemExit:
        said = _said(complaints.getvalue())
        raise PlatformError(Code.INVALID_ARGUMENT, f"vLLM: {said}", param="engine") from None
    except KeyError as error:
        raise PlatformError(
            Code.INVALID_ARGUMENT, f"vLLM: {error.args[0]}", param="tool_parser"
        ) from None
    except (TypeError, ValueError, VLLMClientError) as error:
        raise PlatformError(Code.INVALID_ARGUMENT, f"vLLM: {error}", param="engine") from None
    namespace: argparse.Namespace = parsed
    return namespace


def _parsers(args: argparse.Namespace) -> None:
    """Load parser plugins and check parser names before a model is loaded, as vLLM's server does.

    Source: vLLM's `setup_server`.
    """
    if args.tool_parser_plugin:
        ToolParserManager.import_tool_parser(args.tool_parser_plugin)
    if args.reasoning_parser_plugin:
        ReasoningParserManager.import_reasoning_parser(args.reasoning_parser_plugin)
    validate_api_server_args(args)


def _said(complaint: str) -> str:
    """Return what a parser says after its usage, in one line and without pydantic's links."""
    lines = complaint.split(": error: ", 1)[-1].splitlines()
    return " ".join(line.strip() for line in lines if "errors.pydantic.dev" not in line)


def _command_line(parser: argparse.ArgumentParser, values: Mapping[str, Any]) -> list[str]:
    """Spell values as the parser's options."""
    # argparse has no public list of its options.
    options = {a.dest: a for a in parser._actions if a.option_strings}  # noqa: SLF001
    argv: list[str] = []
    for key, value in values.items():
        if value is None:
            continue
        if key not in options:
            raise PlatformError(
                Code.INVALID_ARGUMENT, f"vLLM has no option for '{key}'.", param=key
            )
        action = options[key]
        flag = max(action.option_strings, key=len)
        if isinstance(value, bool):
            argv += _switch(action, value=value)
        elif isinstance(value, Mapping):
            argv += [flag, json.dumps(value)]
        elif isinstance(value, list | tuple):
            argv += [flag, *(v if isinstance(v, str) else json.dumps(v) for v in value)]
        else:
            # One word, so that a value that begins with a dash is not taken for an option.
            argv.append(f"{flag}={value}")
    return argv


def _switch(action: argparse.Action, *, value: bool) -> list[str]:
    positive = [o for o in action.option_strings if not o.startswith("--no-")]
    negative = [o for o in action.option_strings if o.startswith("--no-")]
    bare = action.nargs == 0 or action.const is True  # `--hf-token` may stand without a value
    if value:
        return [max(positive, key=len)] if bare else [f"{positive[0]}=true"]
    if negative:
        return [negative[0]]
    return [] if bare else [f"{positive[0]}=false"]
