"""The protocols of an ingress, as its settings name them."""

import pytest
from google.protobuf import descriptor_pool

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.serving.faces import STREAMS, UNARY, http_protocols, rpc_protocols
from rayserve_platform.settings.app import Ingress


def made(*protocols: str) -> Ingress:
    return Ingress.model_validate({"protocols": protocols})


@pytest.mark.parametrize("protocol", ["caikit", "tgis", "kserve"])
def test_an_ingress_has_a_method_for_every_rpc_of_a_protocols_services(protocol):
    faces = rpc_protocols(made(protocol), Catalog([]))
    (own,) = [face for face in faces if face.name == protocol]
    pool = descriptor_pool.Default()
    for service in own.services:
        for method in pool.FindServiceByName(service).methods:
            known, answered = (
                (STREAMS, own.streams) if method.server_streaming else (UNARY, own.unary)
            )
            assert method.name in known
            assert method.name in answered


def test_protocols_are_made_in_the_order_of_the_settings():
    for order in (("caikit", "openai"), ("openai", "caikit"), ("caikit",)):
        faces = http_protocols(made(*order), Catalog([]), engine_elsewhere=True)
        assert tuple(face.name for face in faces) == (*order, "metrics")


def test_health_and_reflection_are_always_there():
    names = {face.name for face in rpc_protocols(made("openai"), Catalog([]))}
    assert names == {"health", "reflection"}
