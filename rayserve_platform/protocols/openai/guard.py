"""What no body may ask for, whichever engine it is for: checked before an engine sees it.

An engine's own server reads the body by itself. What it would do with these is either unsafe, or
more work than one request may make.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from rayserve_platform.core.errors import PlatformError
from rayserve_platform.core.guides import check_pattern, check_size, check_text
from rayserve_platform.protocols.openai.translate import invalid

MEDIA = ("image_url", "video_url", "audio_url", "file_url")
"""How parts of messages name what an engine would fetch: a text, or an object with `url`."""
SPOKEN = (
    "messages",
    "input",
    "system",
    "query",
    "queries",
    "documents",
    "items",
    "text_1",
    "text_2",
)
"""The fields that hold parts of messages."""
NOT_PARTS = frozenset({"arguments", "tools"})
"""Of a message: what a tool was called with is the caller's own affair."""
REFUSED = {
    "chat_template": "Chat templates come with the model or its configuration, not with a request.",
    "kv_transfer_params": "It is for an engine's peers, not for clients.",
}
PLAIN_GUIDES = ("guided_grammar", "guided_choice", "guided_json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """What one request may ask for.

    Args:
        max_choices: continuations: its prompts times its `n`.
        media_hosts: hosts of which an engine may fetch images, sound and video.
    """

    max_choices: int = 512
    media_hosts: frozenset[str] = frozenset()


def check(content: dict[str, Any], caps: Caps) -> None:
    """Refuse a decoded body that asks for what no request may have.

    Raises:
        PlatformError: INVALID_ARGUMENT naming the field.
    """
    kwargs = content.get("chat_template_kwargs")
    for field, why in REFUSED.items():
        if content.get(field) is not None or (isinstance(kwargs, dict) and field in kwargs):
            raise invalid(f"'{field}' is not accepted: {why}", field)
    _check_choices(content, caps.max_choices)
    _check_guides(content)
    for field, url in _urls(content):
        _check_url(url, field, caps.media_hosts)


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
    forms = form if isinstance(form, dict) else {}
    for field, pattern in (
        ("structured_outputs.regex", forms.get("regex")),
        ("guided_regex", content.get("guided_regex")),
    ):
        if isinstance(pattern, str):
            check_pattern(pattern, field)
    guides = {f"structured_outputs.{key}": guide for key, guide in forms.items()}
    guides |= {key: content.get(key) for key in PLAIN_GUIDES}
    guides["response_format"] = content.get("response_format")
    text = content.get("text")
    guides["text.format"] = text.get("format") if isinstance(text, dict) else None
    for field, guide in guides.items():
        if guide is not None and not field.endswith("regex"):
            _check_guide(guide, field)


def _check_guide(guide: Any, field: str) -> None:
    if isinstance(guide, str) and not field.endswith("json"):
        check_size(guide, field)
        return
    try:
        text = guide if isinstance(guide, str) else json.dumps(guide)
    except RecursionError:
        raise invalid(f"The schema in '{field}' is nested too deeply.", field) from None
    check_text(text, field)


def _urls(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a body would have fetched, each with the name of its field."""
    waiting = [content[field] for field in SPOKEN if field in content]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += [item for item in part if isinstance(item, dict | list)]
        elif isinstance(part, dict):
            yield from _own_urls(part)
            if part.get("type") != "tool_use":
                waiting += [value for key, value in part.items() if key not in NOT_PARTS]


def _own_urls(part: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for field in MEDIA:
        found = part.get(field)
        url = found.get("url") if isinstance(found, dict) else found
        if isinstance(url, str):
            yield field, url
    if part.get("type") == "url" and isinstance(part.get("url"), str):
        yield "source", part["url"]


def _check_url(url: str, field: str, hosts: frozenset[str]) -> None:
    if url[:5].lower() == "data:":
        return
    if not hosts:
        text = f"'{field}' must be a data: URL; this server fetches nothing for its callers."
        raise invalid(text, field)
    if _host(url) not in hosts:
        raise _unknown_host(field, hosts)


def _host(url: str) -> str | None:
    """Return the host of an URL that everybody reads alike, else None."""
    if not url.isascii() or not url.isprintable() or any(char in url for char in "\\ @"):
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return parts.hostname if parts.scheme in ("http", "https") else None


def _unknown_host(field: str, hosts: frozenset[str]) -> PlatformError:
    known = ", ".join(sorted(hosts))
    return invalid(f"'{field}' must be a data: URL, or http(s) on one of these: {known}.", field)
