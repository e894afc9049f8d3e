"""The protocols of an ingress, as its settings name them."""

from google.protobuf import descriptor_pool

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.serving.faces import STREAMS, UNARY, http_protocols, rpc_protocols
from rayserve_platform.settings.app import Ingress


def made(*protocols: str) -> Ingress:
    return Ingress.model_validate({"protocols": protocols})


def test_an_ingress_has_a_method_for_every_rpc_of_caikits_services():
    faces = rpc_protocols(made("caikit"), Catalog([]))
    (caikit,) = [face for face in faces if face.name == "caikit"]
    pool = descriptor_pool.Default()
    for service in caikit.services:
        for method in pool.FindServiceByName(service).methods:
            known, answered = (
                (STREAMS, caikit.streams) if method.server_streaming else (UNARY, caikit.unary)
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
