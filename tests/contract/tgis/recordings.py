"""The exchanges recorded from the adapter (`tests/data/tgis`): to send again and to compare.

The table of deliberate differences in `configs/tgis/README.md` names the cases that are not held to
their recordings.
"""

import asyncio
import contextlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format

from rayserve_platform.pb import generation_pb2 as pb

ROOT = Path(__file__).parents[3]
DATA = ROOT / "tests/data/tgis"
TABLE = ROOT / "configs/tgis/README.md"
METHODS: dict[str, tuple[Any, Any]] = {
    "Generate": (pb.BatchedGenerationRequest, pb.BatchedGenerationResponse),
    "GenerateStream": (pb.SingleGenerationRequest, pb.GenerationResponse),
    "Tokenize": (pb.BatchedTokenizeRequest, pb.BatchedTokenizeResponse),
    "ModelInfo": (pb.ModelInfoRequest, pb.ModelInfoResponse),
}
TIMEOUT_S = 240
TOLERANCE = 2e-3
ANY_DETAILS = {"OK", "UNIMPLEMENTED", "DEADLINE_EXCEEDED"}
"""Statuses whose details are gRPC's own."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of a call: messages as JSON values."""

    code: str
    details: str = ""
    messages: tuple[Any, ...] = ()


def cases(*files: str) -> list[dict[str, Any]]:
    """Return the recorded exchanges that can be sent again."""
    return [
        case
        for file in files
        for case in json.loads((DATA / file).read_text())["cases"]
        if isinstance(case["req"], dict)
    ]


def different() -> set[str]:
    """Return the names of the cases that the table of differences sets apart."""
    rows = [line for line in TABLE.read_text().splitlines() if line.startswith("|")]
    return {name for row in rows for name in re.findall(r"`([a-z][\w.]+)`", row.split("|")[-2])}


async def call(channel: grpc.aio.Channel, case: dict[str, Any]) -> Answer:
    """Send a recorded request."""
    metadata = tuple((key, value) for key, value in case.get("md", ()))
    options: Any = {"metadata": metadata, "timeout": case.get("timeout", TIMEOUT_S)}
    rpc = case["rpc"]
    if rpc.startswith("/"):
        raw: Any = {"request_serializer": bytes, "response_deserializer": bytes}
        sending = channel.unary_unary(rpc, **raw)(bytes.fromhex(case.get("raw_hex", "")), **options)
        return await _answer(sending, stream=False)
    asks, answers = METHODS[rpc]
    stream = rpc == "GenerateStream"
    kind = channel.unary_stream if stream else channel.unary_unary
    send = kind(
        f"/fmaas.GenerationService/{rpc}",
        request_serializer=asks.SerializeToString,
        response_deserializer=answers.FromString,
    )
    message = json_format.ParseDict(case["req"], asks())
    return await _answer(send(message, **options), stream=stream)


async def _answer(sending: Any, *, stream: bool) -> Answer:
    messages: list[Any] = []
    with contextlib.suppress(grpc.aio.AioRpcError):
        if stream:
            messages.extend([json_format.MessageToDict(message) async for message in sending])
        else:
            messages.append(await sending)
    code, details = await asyncio.gather(sending.code(), sending.details())
    return Answer(
        code=code.name,
        details=details or "",
        messages=tuple(
            m if isinstance(m, dict | bytes) else json_format.MessageToDict(m) for m in messages
        ),
    )


def difference(case: dict[str, Any], got: Answer) -> str | None:
    """Say how an answer differs from the recorded one, if it does.

    What the adapter answered as UNKNOWN is the caller's mistake, and must be told as one.
    """
    expected = case["result"]
    code = expected["code"]
    if code == "UNKNOWN":
        told = got.code == "INVALID_ARGUMENT" and got.details
        return None if told else f"{got.code} {got.details!r} is not INVALID_ARGUMENT"
    if got.code != code:
        return f"{got.code} {got.details!r:.200} is not {code}"
    if code not in ANY_DETAILS and got.details != expected["details"]:
        return f"{got.details!r} is not {expected['details']!r}"
    if code != "OK":
        return None
    ours, theirs = list(got.messages), expected["messages"]
    if case["kind"] == "shape":
        return None if bool(ours) == bool(theirs) and _keys(ours) >= _keys(theirs[:1]) else "empty"
    if case["rpc"] == "GenerateStream":
        ours, theirs = [_whole(ours)], [_whole(theirs)]
    return None if _close(ours, theirs) else f"{ours!r:.600}\n   is not {theirs!r:.600}"


def _keys(messages: list[Any]) -> set[str]:
    return {key for message in messages for key in message}


def _whole(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Fold a stream into one message: a server may send several tokens at a time."""
    whole: dict[str, Any] = {"first": messages[0] if messages else {}}
    for message in messages[1:]:
        for key, value in message.items():
            joined = key in ("text", "tokens") and key in whole
            whole[key] = whole[key] + value if joined else value
    return whole


def _close(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(_close(ours[k], theirs[k]) for k in theirs)
    if isinstance(theirs, list) and isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(_close, ours, theirs))
    if isinstance(theirs, float) or isinstance(ours, float):
        return math.isclose(float(ours), float(theirs), rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(ours == theirs)
