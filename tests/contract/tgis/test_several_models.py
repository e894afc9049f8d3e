"""With several models `model_id` means something; with one it does not."""

import grpc
import pytest

from rayserve_platform.pb import generation_pb2 as pb
from rayserve_platform.pb.generation_pb2_grpc import GenerationServiceStub
from tests.conftest import fake_runtime
from tests.contract.tgis.conftest import tgis


async def test_a_name_picks_the_model_and_none_or_a_wrong_one_is_refused():
    short, long = fake_runtime(id="short", max_model_len=8), fake_runtime(id="long")
    async with tgis(short, long) as server:
        stub = GenerationServiceStub(server.channel)
        for name, length in (("short", 8), ("long", 4096)):
            answer = await stub.ModelInfo(pb.ModelInfoRequest(model_id=name))
            assert answer.max_sequence_length == length
        for name, code in (
            ("", grpc.StatusCode.INVALID_ARGUMENT),
            ("other", grpc.StatusCode.NOT_FOUND),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ModelInfo(pb.ModelInfoRequest(model_id=name))
            assert caught.value.code() is code
            assert "short" in (caught.value.details() or "")
