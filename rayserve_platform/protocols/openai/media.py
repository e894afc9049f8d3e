"""The parts of messages that name a file in the net: finding them, and putting the file there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rayserve_platform.edge.media import Fetcher, host_of
from rayserve_platform.protocols.openai.translate import invalid

MEDIA = ("image_url", "video_url", "audio_url", "file_url")
"""How parts of messages name what an engine would fetch: a text, or an object with `url`."""
NOT_SPOKEN = frozenset(
    {
        "arguments",
        "chat_template_kwargs",
        "functions",
        "guided_json",
        "metadata",
        "response_format",
        "structured_outputs",
        "text",
        "tools",
    }
)
"""Fields of a body that hold no parts. All others are searched: engines have ever more that do
(`messages`, `input`, `documents`, `data_1`)."""
CALLS = frozenset({"function", "function_call"})
"""Under which keys a call stands, which has `arguments`."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an URL stands in a body: `holder[key]`."""

    field: str
    holder: dict[str, Any]
    key: str

    @property
    def url(self) -> str:
        """What stands there."""
        return str(self.holder[self.key])


def places(content: dict[str, Any]) -> Iterator[Place]:
    """Yield where a body names a file that is not in it."""
    waiting = [(key, value) for key, value in content.items() if key not in NOT_SPOKEN]
    while waiting:
        place, part = waiting.pop()
        if isinstance(part, list):
            waiting += [(place, item) for item in part if isinstance(item, dict | list)]
        elif isinstance(part, dict):
            yield from (each for each in _own(part) if each.url[:5].lower() != "data:")
            skipped = _not_parts(place, part)
            waiting += [(key, value) for key, value in part.items() if key not in skipped]


def _not_parts(place: str, part: dict[str, Any]) -> set[str]:
    """Return in which keys something has no parts: with what a tool was called is its caller's own.

    A message is no call, whatever it says that it is: an engine reads its parts.
    """
    kind, is_message = part.get("type"), "role" in part
    found = set()
    if not is_message and kind == "tool_use":
        found.add("input")
    if not is_message and (place in CALLS or kind == "function_call"):
        found.add("arguments")
    if is_message or kind == "mcp_list_tools":
        found.add("tools")
    return found


def _own(part: dict[str, Any]) -> Iterator[Place]:
    for field in MEDIA:
        found = part.get(field)
        if isinstance(found, str):
            yield Place(field, part, field)
        elif isinstance(found, dict) and isinstance(found.get("url"), str):
            yield Place(field, found, "url")
    if part.get("type") == "url" and isinstance(part.get("url"), str):
        yield Place("source", part, "url")


def check_host(place: Place, hosts: frozenset[str]) -> None:
    """Refuse an URL whose host is not one of those allowed.

    Raises:
        PlatformError: INVALID_ARGUMENT naming the field.
    """
    field = place.field
    if not hosts:
        text = f"'{field}' must be a data: URL; this server fetches nothing for its callers."
        raise invalid(text, field)
    if host_of(place.url) not in hosts:
        text = f"'{field}' must be a data: URL, or http(s) on a host that this server fetches from."
        raise invalid(text, field)


async def fill(found: Sequence[Place], fetcher: Fetcher) -> None:
    """Put the files themselves where a body names them.

    Raises:
        PlatformError: INVALID_ARGUMENT naming the field of one that can't be had.
    """
    fetched = await fetcher.data_urls([(place.url, place.field) for place in found])
    for place, url in zip(found, fetched, strict=True):
        place.holder[place.key] = url
