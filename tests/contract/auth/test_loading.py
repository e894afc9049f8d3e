"""Loading and unloading is a right of its own: whoever may call a model has it only if given."""

from typing import Any

import grpc
import pytest

from rayserve_platform.pb.kserve_inference_pb2 import RepositoryModelLoadRequest
from rayserve_platform.pb.kserve_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.authorities import Issuer, bearer
from tests.contract.auth.conftest import Repository

NOBODY: dict[str, Any] = {"load": []}
ADMINS = {"load": [{"predicate": "model.operation == 'load' && 'admins' in auth.identity.groups"}]}


@pytest.mark.parametrize("verb", ["load", "unload"])
@pytest.mark.parametrize(("auth", "groups"), [(NOBODY, ["admins"]), (ADMINS, ["users"])], ids=str)
async def test_a_right_to_call_a_model_is_none_to_load_it(
    serve: Any, issuer: Issuer, verb: str, auth: Any, groups: list[str]
) -> None:
    models = Repository("alpha", "beta")
    server = await serve("kserve", models, auth=auth)
    headers = bearer(issuer.token(models=["alpha"], groups=groups))
    refused = await server.http.post(f"/v2/repository/models/alpha/{verb}", headers=headers)
    assert (refused.status_code, models.seen) == (403, [])
    hidden = await server.http.post(f"/v2/repository/models/beta/{verb}", headers=headers)
    assert (hidden.status_code, models.seen) == (404, [])
    called = await server.http.get("/v2/models/alpha", headers=headers)
    assert called.status_code == 200


async def test_who_is_given_the_right_loads_only_what_they_may_call(
    serve: Any, issuer: Issuer
) -> None:
    models = Repository("alpha", "beta")
    server = await serve("kserve", models, auth=ADMINS)
    headers = bearer(issuer.token(models=["alpha"], groups=["admins"]))
    done = await server.http.post("/v2/repository/models/alpha/load", headers=headers)
    assert (done.status_code, models.seen) == (200, ["alpha"])
    hidden = await server.http.post("/v2/repository/models/beta/load", headers=headers)
    assert (hidden.status_code, models.seen) == (404, ["alpha"])


async def test_a_right_to_call_a_model_is_none_to_load_it_over_grpc(
    serve: Any, issuer: Issuer
) -> None:
    models = Repository("alpha", "beta")
    server = await serve("kserve", models, auth=NOBODY)
    stub = GRPCInferenceServiceStub(server.channel)
    metadata = bearer(issuer.token(models=["alpha"])).items()
    for name, code in (("alpha", "PERMISSION_DENIED"), ("beta", "NOT_FOUND")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.RepositoryModelLoad(
                RepositoryModelLoadRequest(model_name=name), metadata=tuple(metadata)
            )
        assert caught.value.code().name == code
    assert models.seen == []
