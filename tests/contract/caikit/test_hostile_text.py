"""Whatever parameters a request for text has, it is answered or refused."""

import json
import math
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rayserve_platform.pb.caikit_nlp_service_pb2 import (
    ServerStreamingTextGenerationTaskRequest,
    TextGenerationTaskRequest,
)
from rayserve_platform.protocols.caikit.tasks import (
    GENERATION,
    STREAMED_TEXT_GENERATION,
    TEXT_GENERATION,
)
from tests.contract.caikit.conftest import MODEL, call
from tests.contract.caikit.hostile import in_this_loop, post, still_well

TEXTS = st.text(max_size=40)
EDGES = (0, 1, -1, 19, 20, 21, 1024, 1025, 2**32 - 1, 2**32, 2**63, 2**64 - 1, 2**64, 10**4000)
INTEGERS = st.sampled_from(EDGES) | st.integers()
FRACTIONS = (0.0, -0.0, 0.05, 1.0, 2.0, 10.0, 1e-300, 1e39, 1e308, math.inf, -math.inf, math.nan)
NUMBERS = st.sampled_from(FRACTIONS) | st.floats() | st.sampled_from(EDGES[:-1])
KINDS: dict[Any, st.SearchStrategy[Any]] = {
    int: INTEGERS,
    float: NUMBERS,
    bool: st.booleans(),
    str: st.sampled_from(["GREEDY", "SAMPLING", "", "x" * 3000]) | TEXTS,
    list[str]: st.lists(TEXTS | st.just("the"), max_size=8),
}


def wellformed(fields: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Return values of the right kinds for some of the fields."""
    kinds = {
        name: wellformed(kind) if isinstance(kind, Mapping) else KINDS[kind]
        for name, kind in fields.items()
    }
    return st.fixed_dictionaries({}, optional=kinds)


async def test_any_parameters_of_text_generation_are_taken_or_refused(fake):
    server = await fake()
    paths = st.sampled_from(["text-generation", "server-streaming-text-generation"])

    @given(path=paths, text=TEXTS, parameters=wellformed(GENERATION))
    @settings(max_examples=400)
    async def check(path: str, text: str, parameters: Any) -> None:
        body = {"model_id": MODEL, "inputs": text, "parameters": parameters}
        await post(server, f"/api/v1/task/{path}", json.dumps(body).encode())

    await in_this_loop(check)
    await still_well(server)


RANGES: dict[Any, Any] = {
    int: st.sampled_from(EDGES[:10]) | st.integers(-(2**63), 2**63 - 1),
    float: st.floats(),
}


async def test_any_call_for_text_is_answered_or_refused(fake):
    server = await fake()
    rpcs: dict[str, Any] = {
        TEXT_GENERATION.rpc: TextGenerationTaskRequest,
        STREAMED_TEXT_GENERATION.rpc: ServerStreamingTextGenerationTaskRequest,
    }
    fields: dict[str, Any] = {
        name: RANGES.get(kind, KINDS.get(kind))
        for name, kind in GENERATION.items()
        if name not in ("seed", "exponential_decay_length_penalty")
    }
    fields["seed"] = st.integers(0, 2**64 - 1)
    fields["exponential_decay_length_penalty"] = st.fixed_dictionaries(
        {}, optional={"start_index": RANGES[int], "decay_factor": RANGES[float]}
    )
    asked = st.fixed_dictionaries({}, optional={"text": TEXTS, **fields})

    @given(rpc=st.sampled_from(list(rpcs)), asked=asked)
    @settings(max_examples=300)
    async def check(rpc: str, asked: Any) -> None:
        body = rpcs[rpc](**asked).SerializeToString()
        assert await call(server, rpc, body) in {"OK", "INVALID_ARGUMENT"}

    await in_this_loop(check)
    await still_well(server)
