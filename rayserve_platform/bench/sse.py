"""Counts server-sent events without parsing them, except the first and the last.

A load generator shares the machine with the server it measures, so a token must cost it as little
as possible: lines are counted in bytes, JSON is read only until the first content and at the end.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html. OpenAI-compatible servers
send one `data:` line per event and end with `data: [DONE]`; lines may end in LF or CRLF.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

_MARK = b"data:"
_LATER_MARK = b"\ndata:"
_DONE = b"[DONE]"
# The usage event, sent last when stream_options.include_usage is set, carries no choice.
_NO_CHOICES = (b'"choices":[]', b'"choices": []')
_CONTENT_FIELDS = ("content", "reasoning_content", "reasoning", "tool_calls")


class EventReader:
    """Collects counts and arrival times of one stream's events; feed it the bytes as they arrive.

    Attributes:
        events: data events so far, `[DONE]` not counted.
        content_events: events that bring output: the first content and all after it.
        first_content_s: arrival of the first output, on the caller's clock.
        gaps_s: seconds between output events; those that arrive together have a gap of zero.
        done: whether `[DONE]` came.
        last: payload of the last data event that was not `[DONE]`.
    """

    __slots__ = (
        "_last_content_s",
        "_parse",
        "_tail",
        "content_events",
        "done",
        "events",
        "first_content_s",
        "gaps_s",
        "last",
    )

    def __init__(self, *, parse: bool = True) -> None:
        """With `parse` off every event counts as content and no JSON is read."""
        self._parse = parse
        self._tail = b""
        self._last_content_s = 0.0
        self.events = 0
        self.content_events = 0
        self.first_content_s: float | None = None
        self.gaps_s: list[float] = []
        self.done = False
        self.last = b""

    def feed(self, data: bytes, now_s: float) -> None:
        """Take bytes that arrived at `now_s`; they may end in the middle of a line."""
        block = self._tail + data if self._tail else data
        cut = block.rfind(b"\n") + 1
        self._tail = block[cut:]
        if not cut:
            return
        block = block[:cut]
        if self._parse and self.first_content_s is None:
            self._find_content(block, now_s)
        else:
            self._count(block, now_s)

    def finish(self, now_s: float) -> None:
        """Take a last line that has no line end."""
        if self._tail:
            self.feed(b"\n", now_s)

    def _find_content(self, block: bytes, now_s: float) -> None:
        """Read events one by one up to the first content; the rest is only counted."""
        start = 0
        while start < len(block):
            end = block.index(b"\n", start) + 1
            line = block[start:end]
            if line.startswith(_MARK) and has_content(payload_of(line)):
                self._count(block[start:], now_s)
                return
            if line.startswith(_MARK):
                self._keep_last(line)
                self.events += payload_of(line) != _DONE
            start = end

    def _count(self, block: bytes, now_s: float) -> None:
        found = block.count(_LATER_MARK) + block.startswith(_MARK)
        if not found:
            return
        found -= self._keep_last(block)
        self.events += found
        found -= sum(block.count(mark) for mark in _NO_CHOICES) if self._parse else 0
        if found <= 0:
            return
        self.content_events += found
        if self.first_content_s is None:
            self.first_content_s = now_s
        else:
            self.gaps_s.append(now_s - self._last_content_s)
        self.gaps_s.extend([0.0] * (found - 1))
        self._last_content_s = now_s

    def _keep_last(self, block: bytes) -> int:
        """Remember the last payload of the block; return how many of its events are `[DONE]`."""
        end = len(block)
        for seen_done in (0, 1):
            start = block.rfind(_LATER_MARK, 0, end) + 1
            line = block[start:end]
            if not line.startswith(_MARK):
                return seen_done
            payload = payload_of(line[: line.find(b"\n") + 1] or line)
            if payload != _DONE:
                self.last = payload
                return seen_done
            self.done = True
            end = start
        return 1


def payload_of(line: bytes) -> bytes:
    """Return what stands after `data:`, without line end and surrounding blanks."""
    return line[len(_MARK) :].strip()


def json_object(payload: bytes) -> Mapping[str, object]:
    """Return the JSON object in the payload, an empty one when there is none."""
    try:
        value = json.loads(payload)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def has_content(payload: bytes) -> bool:
    """Tell whether an OpenAI chunk brings output: text, reasoning or a tool call."""
    choices = json_object(payload).get("choices")
    if not isinstance(choices, list):
        return False
    return any(_choice_has_content(choice) for choice in choices if isinstance(choice, dict))


def _choice_has_content(choice: Mapping[str, object]) -> bool:
    if choice.get("text"):
        return True
    delta = choice.get("delta")
    return isinstance(delta, dict) and any(delta.get(field) for field in _CONTENT_FIELDS)


def output_tokens(payload: bytes) -> int | None:
    """Return `usage.completion_tokens` of an OpenAI answer or chunk, None when it has none."""
    usage = json_object(payload).get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) else None


def is_error(payload: bytes) -> bool:
    """Tell whether the payload is an in-band error, as sent after the first byte of a stream."""
    return bool(json_object(payload).get("error"))
