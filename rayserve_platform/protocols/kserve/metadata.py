"""What server and models say of themselves, as plain values for both transports."""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import rayserve_platform
from rayserve_platform.core.cards import ModelCard
from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.entry import Served
from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.tensors import ModelVersion, TensorSpec, Value, VersionState
from rayserve_platform.protocols.kserve.tensors import invalid, shown
from rayserve_platform.protocols.kserve.texts import VERSION, version_of, versions_of

SERVER = "rayserve-platform"
REPOSITORY_STATES = {
    VersionState.AVAILABLE: "READY",
    VersionState.START: "LOADING",
    VersionState.LOADING: "LOADING",
    VersionState.UNLOADING: "UNLOADING",
    VersionState.END: "UNAVAILABLE",
}
"""The model repository extension's names of the states."""
BROKEN = "the model could not be loaded"


def server(*, repository: bool) -> dict[str, Any]:
    """Describe the server."""
    extensions = ["binary_tensor_data", "generate", *(["model_repository"] if repository else [])]
    return {
        "name": SERVER,
        "version": rayserve_platform.__version__,
        "extensions": extensions,
    }


def model(served: Served, name: str, version: str | None) -> dict[str, Any]:
    """Describe a model.

    Raises:
        PlatformError: as `version_of`.
    """
    found = version_of(served.card, version)
    available = [
        item.version for item in versions_of(served.card) if item.state is VersionState.AVAILABLE
    ]
    return {
        "name": name,
        "versions": [found.version] if version else available,
        "platform": served.card.platform or served.card.runtime,
        "inputs": _specs(found.inputs),
        "outputs": _specs(found.outputs),
    }


def _specs(specs: Iterable[TensorSpec]) -> list[dict[str, Any]]:
    return [
        {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)} for spec in specs
    ]


async def is_ready(catalog: Catalog, name: str, version: str | None) -> bool:
    """Say whether a model can answer.

    Raises:
        PlatformError: NOT_FOUND for a model or version that does not exist; PERMISSION_DENIED for
            a caller who may call nothing.
    """
    try:
        served = await catalog.resolve(name, version)
        version_of(served.card, version)
    except PlatformError as error:
        if error.code in (Code.NOT_FOUND, Code.PERMISSION_DENIED):
            raise
        return False
    return True


def with_files(given: Any) -> dict[str, Value | bytes]:
    """Check the parameters of loading a model; files among them come in base64.

    Source: Triton's model repository extension: `config` is a JSON text, `file:<path>` a file.
    """
    if given is None:
        return {}
    if type(given) is not dict:
        raise invalid("'parameters' must be an object.", "parameters")
    found: dict[str, Value | bytes] = {}
    for key, value in given.items():
        if type(value) not in (bool, int, float, str):
            raise invalid(
                f"The parameter '{shown(key)}' must be a number, a string, true or false.",
                "parameters",
            )
        found[key] = _decoded(key, value) if key.startswith("file:") else value
    return found


def _decoded(key: str, value: Value) -> bytes:
    try:
        return base64.b64decode(str(value), validate=True)
    except ValueError:
        raise invalid(f"The parameter '{shown(key)}' is not valid base64.", "parameters") from None


class Repository:
    """The model repository extension, where the settings allow it."""

    def __init__(self, catalog: Catalog, *, enabled: bool) -> None:
        self._catalog = catalog
        self.enabled = enabled

    async def index(self, *, ready: bool) -> list[dict[str, str]]:
        """List the versions of every model; with `ready`, only those that can answer."""
        self.check()
        rows = [
            _row(served.card.id, version)
            for served in await self._catalog.described()
            for version in listed(served.card)
        ]
        return [row for row in rows if row["state"] == "READY" or not ready]

    async def load(self, name: str, parameters: Mapping[str, Value | bytes]) -> None:
        """Load a model, or load it anew."""
        self.check()
        await self._catalog.load_model(name, parameters)

    async def unload(self, name: str) -> None:
        """Stop serving a model."""
        self.check()
        await self._catalog.unload_model(name)

    def check(self) -> None:
        """Refuse where it is switched off; to be asked before a request is read."""
        if not self.enabled:
            raise PlatformError(
                Code.PERMISSION_DENIED,
                "The model repository API is switched off (ingress.kserve.repository_api).",
            )


def listed(card: ModelCard) -> tuple[ModelVersion, ...]:
    """Return a model's versions for a list of what there is: one at least."""
    versions = versions_of(card) or (ModelVersion(version=VERSION, state=VersionState.END),)
    if not card.problem:
        return versions
    return tuple(
        replace(found, state=VersionState.END, reason=found.reason or BROKEN) for found in versions
    )


def _row(name: str, version: ModelVersion) -> dict[str, str]:
    return {
        "name": name,
        "version": version.version,
        "state": REPOSITORY_STATES[version.state],
        "reason": version.reason,
    }
