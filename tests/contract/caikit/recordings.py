"""The recorded exchanges of the real runtime, and what counts as the same answer."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
DATA = ROOT / "tests/data/caikit"
STANDALONE = ROOT / "configs/caikit-standalone/README.md"
TGIS = ROOT / "configs/caikit-tgis/README.md"

VOLATILE = {"id", "size", "model_path", "url", "runtime_version", "python_packages"}
NUMBER_TOLERANCE = 1e-4
LEAST_COSINE = 0.9999
VECTOR_LENGTH = 16
"""A list of at least so many numbers is a vector."""


def cases(folder: str) -> list[dict[str, Any]]:
    """Return every exchange of a folder of recordings."""
    files = sorted((DATA / folder).glob("*.json"))
    return [case for file in files for case in json.loads(file.read_text())["cases"]]


def deliberate(table: Path) -> set[str]:
    """Return the ids of the recorded cases that a table of differences names."""
    rows = [line for line in table.read_text().splitlines() if line.startswith("| ")]
    cells = [row.strip().strip("|").split("|")[-1] for row in rows]
    return {case for cell in cells for case in re.findall(r"`([^`]+)`", cell)}


def replayed(folder: str, table: Path) -> list[dict[str, Any]]:
    """Return the exchanges that have to be the same."""
    skipped = deliberate(table)
    return [case for case in cases(folder) if case["id"] not in skipped]


def shape(body: str) -> str:
    """Leave of a body what is not a value that may differ: order, spaces, escapes."""
    body = re.sub(r"-?\d+(\.\d+)?([eE]-?\d+)?", "0", re.sub(r'"id": ?"[0-9a-f]{32}"', "", body))
    return re.sub(r'"(url|runtime_version|python_packages|model_path)":("[^"]*"|{[^}]*})', "", body)


def content(body: str) -> Any:
    """Decode a body: JSON, or events, of which each is its kind and its JSON."""
    if not body.startswith("event: "):
        return json.loads(body)
    *blocks, rest = body.split("\r\n\r\n")
    assert rest == ""
    found = []
    for block in blocks:
        kind, data = block.split("\r\n")
        assert kind.startswith("event: ")
        assert data.startswith("data: ")
        found.append((kind, json.loads(data.removeprefix("data: "))))
    return found


def folded(recorded: list[dict[str, Any]], ours: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join recorded pieces of a text as our stream has joined them: an engine that is ahead of its
    reader gives several tokens at once."""
    counts = {_count(piece) for piece in ours}
    joined: list[dict[str, Any]] = []
    waiting: list[dict[str, Any]] = []
    for piece in recorded:
        waiting.append(piece)
        if _count(piece) in counts:
            joined.append(_whole(waiting))
            waiting = []
    return joined + waiting


def _count(piece: dict[str, Any]) -> int:
    details = piece.get("details")
    return int(details.get("generated_tokens", 0)) if isinstance(details, dict) else 0


def _whole(pieces: list[dict[str, Any]]) -> dict[str, Any]:
    found = dict(pieces[-1])
    if any("generated_text" in piece for piece in pieces):
        found["generated_text"] = "".join(piece.get("generated_text", "") for piece in pieces)
    if any("tokens" in piece for piece in pieces):
        found["tokens"] = [token for piece in pieces for token in piece.get("tokens", ())]
    return found


def differences(expected: Any, got: Any, where: str = "") -> Iterator[str]:
    """Say in what two decoded answers differ."""
    if isinstance(expected, tuple) and isinstance(got, tuple):
        yield from differences(list(expected), list(got), where)
    elif isinstance(expected, dict) and isinstance(got, dict):
        for key in (expected.keys() | got.keys()) - VOLATILE:
            if key not in expected or key not in got:
                yield f"{where}/{key}: only in {'ours' if key in got else 'theirs'}"
            else:
                yield from differences(expected[key], got[key], f"{where}/{key}")
    elif isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        if _is_vector(expected):
            if _cosine(expected, got) < LEAST_COSINE:
                yield f"{where}: cosine {_cosine(expected, got)}"
            return
        for place, (one, other) in enumerate(zip(expected, got, strict=True)):
            yield from differences(one, other, f"{where}[{place}]")
    elif not _same(expected, got):
        yield f"{where}: {got!r}, not {expected!r}"


def _same(expected: Any, got: Any) -> bool:
    if _is_number(expected) and _is_number(got):
        return bool(abs(expected - got) <= NUMBER_TOLERANCE * max(1, abs(expected)))
    return type(expected) is type(got) and bool(expected == got)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_vector(value: list[Any]) -> bool:
    return len(value) >= VECTOR_LENGTH and all(isinstance(item, float) for item in value)


def _cosine(one: list[float], other: list[float]) -> float:
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / (math.hypot(*one) * math.hypot(*other))
