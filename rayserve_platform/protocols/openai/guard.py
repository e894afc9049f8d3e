"""What no body may ask for, whichever engine it is for: checked before an engine sees it.

An engine's own server reads the body by itself. What it would do with these is either unsafe, or
more work than one request may make.
"""

import json
from dataclasses import dataclass
from typing import Any

from rayserve_platform.core.guides import check_pattern, check_size, check_text
from rayserve_platform.protocols.openai.media import Place, check_host, places
from rayserve_platform.protocols.openai.translate import invalid

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
