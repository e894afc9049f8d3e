"""The client stubs of vllm-tgis-adapter against a server: run in a process of its own, since a
process can hold the messages of one definition only. Prints what it got as JSON.

    adapter_stubs.py HOST:PORT
"""

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict


def stubs() -> tuple[Any, Any]:
    """Return the two generated modules, without the server that the package around them imports."""
    spec = find_spec("vllm_tgis_adapter")
    assert spec is not None
    assert spec.origin is not None
    package = ModuleType("vllm_tgis_adapter.grpc")
    package.__path__ = [str(Path(spec.origin).with_name("grpc"))]
    sys.modules[package.__name__] = package
    from vllm_tgis_adapter.grpc.pb import (  # type: ignore[import-untyped]
        generation_pb2,
        generation_pb2_grpc,
    )

    return generation_pb2, generation_pb2_grpc


def read(message: Any) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True)


def asked(stub: Any, pb: Any) -> dict[str, Any]:
    """Return what each method answers."""
    params = pb.Parameters(
        method=pb.SAMPLE,
        sampling=pb.SamplingParameters(temperature=0.5, seed=7),
        stopping=pb.StoppingCriteria(max_new_tokens=6, min_new_tokens=6),
        response=pb.ResponseOptions(input_text=True, generated_tokens=True, token_logprobs=True),
    )
    once = pb.GenerationRequest(text="Once")
    batch = pb.BatchedGenerationRequest(
        requests=[once, pb.GenerationRequest(text="Twice a day")], params=params
    )
    single = pb.SingleGenerationRequest(request=once, params=params)
    texts = pb.BatchedTokenizeRequest(
        requests=[pb.TokenizeRequest(text="Once"), pb.TokenizeRequest(text="é!")],
        return_tokens=True,
        return_offsets=True,
    )
    wrong = pb.BatchedGenerationRequest(
        requests=[once], params=pb.Parameters(sampling=pb.SamplingParameters(top_p=1.5))
    )
    try:
        refused = read(stub.Generate(wrong, timeout=30))
    except grpc.RpcError as error:
        told: Any = error
        refused = {"code": told.code().name, "details": told.details()}
    return {
        "generate": read(stub.Generate(batch, timeout=30)),
        "stream": [read(message) for message in stub.GenerateStream(single, timeout=30)],
        "tokenize": read(stub.Tokenize(texts, timeout=30)),
        "model": read(stub.ModelInfo(pb.ModelInfoRequest(model_id="any"), timeout=30)),
        "refused": refused,
        "modules": sorted(name for name in sys.modules if name in ("rayserve_platform", "vllm")),
    }


def main(target: str) -> None:
    pb, services = stubs()
    # A proxy that the environment names is not for a server on this machine.
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        got = asked(services.GenerationServiceStub(channel), pb)
    print(json.dumps(got))  # noqa: T201  # its output is read by the test


main(*sys.argv[1:])
