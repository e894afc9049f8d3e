"""The parts of messages that name a file in the net: finding them, and putting the file there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rayserve_platform.edge.media import Fetcher, host_of
from rayserve_platform.protocols.openai.translate import invalid

MEDIA = ("image_url", "video_url", "audio_url", "file_url")
"""How parts of messages name what an engine would fetch: a text, or an object with `url`."""
NOT_PARTS = frozenset({"arguments", "tools"})
"""Of a message: what a tool was called with is the caller's own affair."""
NOT_SPOKEN = NOT_PARTS | {
    "chat_template_kwargs",
    "functions",
    "guided_json",
    "metadata",
    "response_format",
    "structured_outputs",
    "text",
}
"""Fields of a body that hold no parts. All others are searched: engines have ever more that do
(`messages`, `input`, `documents`, `data_1`)."""


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
    waiting = [value for key, value in content.items() if key not in NOT_SPOKEN]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += [item for item in part if isinstance(item, dict | list)]
        elif isinstance(part, dict):
            yield from (place for place in _own(part) if place.url[:5].lower() != "data:")
            if part.get("type") != "tool_use":
                waiting += [value for key, value in part.items() if key not in NOT_PARTS]


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
        known = ", ".join(sorted(hosts))
        text = f"'{field}' must be a data: URL, or http(s) on one of these: {known}."
        raise invalid(text, field)


async def fill(found: Sequence[Place], fetcher: Fetcher) -> None:
    """Put the files themselves where a body names them.

    Raises:
        PlatformError: INVALID_ARGUMENT naming the field of one that can't be had.
    """
    fetched = await fetcher.data_urls([(place.url, place.field) for place in found])
    for place, url in zip(found, fetched, strict=True):
        place.holder[place.key] = url
