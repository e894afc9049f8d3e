"""The wire APIs an ingress can speak, by the name that its settings give them."""

from collections.abc import Callable

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.edge.http import HttpProtocol
from rayserve_platform.edge.media import Fetcher
from rayserve_platform.edge.rpc import RpcProtocol
from rayserve_platform.protocols.caikit.http import CaikitHttp
from rayserve_platform.protocols.caikit.rpc import CaikitRpc
from rayserve_platform.protocols.caikit.tasks import STREAMED_TEXT_GENERATION, TASKS
from rayserve_platform.protocols.health import HealthRpc
from rayserve_platform.protocols.kserve.http import KServeHttp
from rayserve_platform.protocols.kserve.rpc import KServeRpc
from rayserve_platform.protocols.metrics import MetricsHttp
from rayserve_platform.protocols.openai.guard import Caps
from rayserve_platform.protocols.openai.http import OpenAIHttp
from rayserve_platform.protocols.reflection import ReflectionRpc
from rayserve_platform.protocols.tgis.http import TgisHttp
from rayserve_platform.protocols.tgis.metrics import exported
from rayserve_platform.protocols.tgis.options import Options
from rayserve_platform.protocols.tgis.rpc import TgisRpc
from rayserve_platform.settings.app import Ingress

UNARY = (
    "Check",
    *(task.rpc for task in TASKS if task is not STREAMED_TEXT_GENERATION),
    "GetModelsInfo",
    "GetRuntimeInfo",
    "Generate",
    "Tokenize",
    "ModelInfo",
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelInfer",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
)
STREAMS = (
    "Watch",
    "ServerReflectionInfo",
    STREAMED_TEXT_GENERATION.rpc,
    "GenerateStream",
    "ModelStreamInfer",
)
"""The names of all RPCs, whichever protocols an ingress speaks: Serve must find a method for each
that its gRPC servers know."""

KNOWN_TO_HEALTH = {"tgis": TgisRpc.services}
"""Services that the originals' health service knows by name; Caikit's knows none."""


def http_protocols(
    settings: Ingress, catalog: Catalog, *, engine_elsewhere: bool
) -> list[HttpProtocol]:
    """Make the HTTP faces of an ingress: its protocols in the order of its settings, and metrics.

    `engine_elsewhere` is as for `MetricsHttp`.
    """
    makers: dict[str, Callable[[], HttpProtocol]] = {
        "openai": lambda: OpenAIHttp(
            catalog, docs=settings.docs, caps=openai_caps(settings), fetcher=fetcher(settings)
        ),
        "caikit": lambda: CaikitHttp(
            catalog, max_new_tokens=settings.caikit.max_new_tokens, docs=settings.docs
        ),
        "tgis": lambda: TgisHttp(catalog),
        "kserve": lambda: KServeHttp(catalog, repository_api=settings.kserve.repository_api),
    }
    faces = [makers[name]() for name in settings.protocols]
    if settings.metrics:
        faces.append(MetricsHttp(catalog, engine_elsewhere=engine_elsewhere))
    return faces


def rpc_protocols(settings: Ingress, catalog: Catalog) -> list[RpcProtocol]:
    """Make the gRPC faces of an ingress: health and reflection always."""
    makers: dict[str, Callable[[], RpcProtocol]] = {
        "caikit": lambda: CaikitRpc(catalog, max_new_tokens=settings.caikit.max_new_tokens),
        "tgis": lambda: TgisRpc(catalog, tgis_options(settings), exported()),
        "kserve": lambda: KServeRpc(
            catalog,
            repository_api=settings.kserve.repository_api,
            max_bytes=int(settings.limits.max_body_mib * 2**20),
        ),
    }
    known = [name for face in settings.protocols for name in KNOWN_TO_HEALTH.get(face, ())]
    faces: list[RpcProtocol] = [HealthRpc(catalog, known)]
    faces += [makers[name]() for name in settings.protocols if name in makers]
    services = [service for face in faces for service in face.services]
    return [*faces, ReflectionRpc(services)]


def openai_caps(settings: Ingress) -> Caps:
    """Return what the settings say of the OpenAI protocol."""
    openai = settings.openai
    return Caps(
        max_choices=openai.max_choices,
        max_media=openai.max_media,
        media_hosts=frozenset(openai.media_hosts),
    )


def fetcher(settings: Ingress) -> Fetcher:
    """Return what fetches the files that requests name."""
    openai = settings.openai
    return Fetcher(
        networks=openai.media_networks,
        max_bytes=int(openai.max_media_mib * 2**20),
        timeout_s=openai.media_timeout_s,
    )


def tgis_options(settings: Ingress) -> Options:
    """Return what the settings say of the TGIS protocol."""
    return Options(
        **settings.tgis.model_dump(), max_prompts=settings.limits.max_concurrent_requests
    )
