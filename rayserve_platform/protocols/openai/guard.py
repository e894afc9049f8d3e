"""What no body may ask for, whichever engine it is for: checked before an engine sees it.

An engine's own server reads the body by itself. What it would do with these is either unsafe, or
more work than one request may make.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rayserve_platform.core.guides import check_pattern, check_size, check_text, check_together
from rayserve_platform.protocols.openai.media import Place, check_host, places
from rayserve_platform.protocols.openai.translate import invalid

REFUSED = {
    "chat_template": "Chat templates come with the model or its configuration, not with a request.",
    "kv_transfer_params": "It is for an engine's peers, not for clients.",
}
GUIDES = (
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "guided_whitespace_pattern",
    "response_format",
)
"""Fields that an answer must match; besides those within another field, and the tools."""
BINDING = ("required", "any", "allowed_tools")
"""What `tool_choice` says when there must be a call, of whichever tool."""
TOOL_SCHEMAS = ("parameters", "input_schema")
TOOL_PLACES = ("definition", "function", "tools")
"""Where in the description of a tool its own, or others, may stand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """What one request may ask for.

    Args:
        max_choices: continuations: its prompts times its `n`.
        max_media: images, pieces of sound and video that have to be fetched.
        media_hosts: of which they may be fetched.
    """

    max_choices: int = 512
    max_media: int = 16
    media_hosts: frozenset[str] = frozenset()


def check(content: dict[str, Any], caps: Caps) -> list[Place]:
    """Refuse a decoded body that asks for what no request may have.

    Returns:
        What is to be fetched before an engine sees it.

    Raises:
        PlatformError: INVALID_ARGUMENT naming the field.
    """
    kwargs = content.get("chat_template_kwargs")
    for field, why in REFUSED.items():
        if content.get(field) is not None or (isinstance(kwargs, dict) and field in kwargs):
            raise invalid(f"'{field}' is not accepted: {why}", field)
    _check_choices(content, caps.max_choices)
    _check_guides(content)
    found = list(places(content))
    for place in found:
        check_host(place, caps.media_hosts)
    if len(found) > caps.max_media:
        raise invalid(
            f"A request may name {caps.max_media} files to be fetched; it has {len(found)}.",
            found[0].field,
        )
    return found


def _check_choices(content: dict[str, Any], most: int) -> None:
    prompts = content.get("prompt")
    is_batch = isinstance(prompts, list) and prompts and not isinstance(prompts[0], int)
    count = len(prompts) if is_batch and isinstance(prompts, list) else 1
    for field in ("n", "best_of"):
        asked = content.get(field)
        each = asked if isinstance(asked, int | float) else 1
        if count * each > most:
            raise invalid(f"'{field}' times the prompts must be at most {most}.", field)


def _check_guides(content: dict[str, Any]) -> None:
    form = content.get("structured_outputs")
    guides = {f"structured_outputs.{key}": guide for key, guide in _dict(form).items()}
    guides |= {key: content.get(key) for key in GUIDES}
    guides["text.format"] = _dict(content.get("text")).get("format")
    guides["output_config.format"] = _dict(content.get("output_config")).get("format")
    for field, guide in guides.items():
        if guide is not None:
            _check_guide(guide, field)
    _check_tools(content)


def _check_tools(content: dict[str, Any]) -> None:
    """Refuse a tool whose arguments are large to compile; each is looked at by itself.

    Where a call of any, or a strict one, is asked for, an engine compiles all of them into one: so
    there they count together.
    """
    schemas: list[Any] = []
    choice = content.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, dict) else choice
    is_bound = kind in BINDING or content.get("parallel_tool_calls") is False
    for field, tool in _tools(content):
        is_bound = is_bound or tool.get("strict") is True
        for schema in (tool[key] for key in TOOL_SCHEMAS if tool.get(key) is not None):
            _check_guide(schema, field)
            schemas.append(schema)
    if is_bound:
        check_together(schemas, "tools")


def _tools(content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what describes tools: OpenAI's, also in a namespace, and Anthropic's.

    The latter may be defined in messages as well.
    """
    waiting = [("tools", content.get("tools")), *_added(content.get("messages"))]
    while waiting:
        field, found = waiting.pop()
        if isinstance(found, list):
            waiting += [(field, each) for each in found]
        elif isinstance(found, dict):
            yield field, found
            waiting += [(field, found.get(key)) for key in TOOL_PLACES]


def _added(messages: Any) -> Iterator[tuple[str, Any]]:
    """Yield the tools that messages add (`tool_addition`)."""
    for message in messages if isinstance(messages, list) else ():
        content = _dict(message).get("content")
        for part in content if isinstance(content, list) else ():
            if _dict(part).get("type") == "tool_addition":
                yield "messages", part.get("tool")


def _check_guide(guide: Any, field: str) -> None:
    if not isinstance(guide, str):
        try:
            check_text(json.dumps(guide), field)
        except RecursionError:
            raise invalid(f"The schema in '{field}' is nested too deeply.", field) from None
    elif field.endswith(("regex", "whitespace_pattern")):
        check_pattern(guide, field)
    elif field.endswith(("json", "structural_tag")):
        check_text(guide, field)
    else:
        check_size(guide, field)


def _dict(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}
