"""Whatever is sent, the answer is the caller's to understand, and the next request works."""

import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import orjson
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from rayserve_platform.pb.kserve_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.contract.caikit.hostile import in_this_loop
from tests.contract.kserve.conftest import kserve
from tests.contract.kserve.recordings import Several, model
from tests.transports import Served
from tests.unit.protocols.kserve.test_hypothesis import SPECS, documents, json_values, protobufs

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOOD = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
BAD = frozenset({400, 404, 405, 413, 415})
VERBS = st.sampled_from(["infer", "versions/1/infer", "versions/0/infer", "generate", "nothing"])
PATHS = st.sampled_from(
    [
        *("/v1/models/x:predict", "/v1/models/w/versions/1:predict", "/v1/models/pixels:predict"),
        *(
            "/v2/repository/index",
            "/v2/repository/models/x/load",
            "/v2/models/x",
            "/v2/health/live",
        ),
    ]
) | st.builds("/v2/models/{}/{}".format, st.sampled_from([*SPECS, "nope", ""]), VERBS)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "content-type": st.sampled_from(["application/json", "application/octet-stream", "a/b"]),
        "content-encoding": st.sampled_from(["gzip", "deflate", "br", "identity"]),
        "inference-header-content-length": st.integers(-1, 60).map(str) | st.just("x"),
    },
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Served]:
    """Three models, each with one input of the requests that are nearly right."""
    runtimes = [model(name, **{name: (s.datatype, s.shape)}) for name, s in SPECS.items()]
    async with kserve(Several(*runtimes), kserve={"repository_api": True}) as server:
        yield server


async def test_any_body_to_any_path_is_answered_or_refused(running):
    @given(
        path=PATHS, document=documents() | json_values, rest=st.binary(max_size=40), head=HEADERS
    )
    @settings(max_examples=50)
    async def check(path: str, document: Any, rest: bytes, head: dict[str, str]) -> None:
        body = json.dumps(document).encode() + rest
        found = await running.http.post(path, content=body, headers=head)
        assert found.status_code in BAD | {200}, found.text
        assert found.status_code == 200 or 0 < len(orjson.loads(found.content)["error"]) < 2000

    await in_this_loop(check)
    assert (await running.http.post("/v2/models/x/infer", json=GOOD)).status_code == 200


async def test_any_message_is_answered_or_refused(running):
    stub = GRPCInferenceServiceStub(running.channel)

    @given(request=protobufs(), name=st.sampled_from([*SPECS, "nope", ""]))
    @settings(max_examples=50)
    async def check(request: Any, name: str) -> None:
        request.model_name = name
        code = grpc.StatusCode.OK
        try:
            await stub.ModelInfer(request)
        except grpc.aio.AioRpcError as error:
            code = error.code()
        assert code in {
            grpc.StatusCode.OK,
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.NOT_FOUND,
        }

    await in_this_loop(check)
    assert (await running.http.get("/v2/models/x/ready")).status_code == 200
