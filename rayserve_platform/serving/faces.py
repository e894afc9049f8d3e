"""The wire APIs an ingress can speak, by the name that its settings give them."""

from collections.abc import Callable

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.edge.http import HttpProtocol
from rayserve_platform.edge.rpc import RpcProtocol
from rayserve_platform.protocols.caikit.http import CaikitHttp
from rayserve_platform.protocols.caikit.rpc import CaikitRpc
from rayserve_platform.protocols.caikit.tasks import STREAMED_TEXT_GENERATION, TASKS
from rayserve_platform.protocols.health import HealthRpc
from rayserve_platform.protocols.openai.http import OpenAIHttp
from rayserve_platform.protocols.reflection import ReflectionRpc
from rayserve_platform.settings.app import Ingress

UNARY = (
    "Check",
    *(task.rpc for task in TASKS if task is not STREAMED_TEXT_GENERATION),
    "GetModelsInfo",
    "GetRuntimeInfo",
)
STREAMS = ("Watch", "ServerReflectionInfo", STREAMED_TEXT_GENERATION.rpc)
"""The names of all RPCs, whichever protocols an ingress speaks: Serve must find a method for each
that its gRPC servers know."""

RPCS: dict[str, Callable[[Catalog], RpcProtocol]] = {"caikit": CaikitRpc}


def http_protocols(
    settings: Ingress, catalog: Catalog, *, engine_elsewhere: bool
) -> list[HttpProtocol]:
    """Make the HTTP faces of an ingress, in the order of its settings."""
    makers: dict[str, Callable[[], HttpProtocol]] = {
        "openai": lambda: OpenAIHttp(
            catalog,
            engine_elsewhere=engine_elsewhere,
            docs=settings.docs,
            metrics=settings.metrics,
        ),
        "caikit": lambda: CaikitHttp(catalog, docs=settings.docs),
    }
    return [makers[name]() for name in settings.protocols]


def rpc_protocols(settings: Ingress, catalog: Catalog) -> list[RpcProtocol]:
    """Make the gRPC faces of an ingress: health and reflection always."""
    faces: list[RpcProtocol] = [HealthRpc(catalog)]
    faces += [RPCS[name](catalog) for name in settings.protocols if name in RPCS]
    services = [service for face in faces for service in face.services]
    return [*faces, ReflectionRpc(services)]
