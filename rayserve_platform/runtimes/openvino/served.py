"""One model of the repository: which of its versions are loaded, and how that changes.

A new version is loaded beside the old one, which goes only when the new one can serve; one that
can't be loaded is listed with the reason and tried again when its files change, and until then an
older one stands in for it.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from rayserve_platform.core.cards import ModelCard, Task
from rayserve_platform.core.errors import Code, PlatformError, internal_error
from rayserve_platform.core.tensors import Infer, ModelVersion, VersionState, chosen
from rayserve_platform.formats.versions import Fingerprint, OnDisk, base_path, scan, wanted
from rayserve_platform.formats.weights import size_bytes
from rayserve_platform.runtimes.openvino.loaded import Loaded, load
from rayserve_platform.settings.openvino import OpenVINOEngine, OpenVINOModel

log = logging.getLogger("rayserve.openvino")


@dataclass(slots=True, kw_only=True)
class _Version:
    """What is known of one version.

    Args:
        tried: the files of its last loading.
        revived: it has been loaded anew because every inference failed.
    """

    entry: ModelVersion
    tried: Fingerprint = ()
    revived: bool = False
    loaded: Loaded | None = None


class ServedModel:
    """See the module. All methods are called in one event loop.

    Args:
        settings: the model's.
        engine: how it is computed.
        threads: of computation, where the engine doesn't say.
        engine_version: for its card.
    """

    def __init__(
        self, settings: OpenVINOModel, engine: OpenVINOEngine, threads: int, engine_version: str
    ) -> None:
        self.settings = settings
        self._engine = engine
        self._threads = threads
        self._engine_version = engine_version
        self._versions: dict[str, _Version] = {}
        self._seen: Mapping[str, OnDisk] = {}
        self._unloaded = False
        self._problem = "there is no version that is asked for"
        self._size_bytes = 0
        self._created = int(time.time())
        self._changing = asyncio.Lock()
        self._draining: set[asyncio.Task[None]] = set()

    @property
    def available(self) -> bool:
        """Whether any version can serve."""
        return any(version.loaded for version in self._versions.values())

    def find(self, request: Infer) -> tuple[Loaded, ModelVersion]:
        """Return the version that a request means.

        Raises:
            PlatformError: NOT_FOUND or UNAVAILABLE.
        """
        entries = [version.entry for version in self._versions.values()]
        entry = chosen(entries, request.version, self.settings.id)
        loaded = self._versions[entry.version].loaded
        assert loaded is not None
        return loaded, entry

    def card(self) -> ModelCard:
        """Return the model's card."""
        model = self.settings
        entries = sorted((v.entry for v in self._versions.values()), key=lambda e: int(e.version))
        failed = any(entry.reason for entry in entries) or not entries
        broken = not self.available and not self._unloaded and failed
        return ModelCard(
            id=model.id,
            aliases=model.aliases,
            root=model.source,
            runtime="openvino",
            tasks=frozenset({Task.INFER}),
            created=self._created,
            size_bytes=self._size_bytes,
            problem=self._problem if broken else "",
            engine_version=self._engine_version,
            platform="OpenVINO",
            versions=tuple(entries),
        )

    def loaded(self) -> list[Loaded]:
        """Return the versions that are loaded."""
        return [version.loaded for version in self._versions.values() if version.loaded]

    async def start(self) -> None:
        """Load what the version policy asks for, as it lies there."""
        async with self._changing:
            try:
                await self._scan()
            except PlatformError as error:
                self._problem = error.message
                log.error("model %s: %s", self.settings.id, error.message)  # noqa: TRY400
                return
            except Exception:
                self._problem = internal_error().message
                log.exception("model %s can't be looked at", self.settings.id)
                return
            await self._adapt()

    async def refresh(self) -> None:
        """Load new versions and retire those that are no longer asked for.

        Only files that have not changed since the last look are loaded: others are being copied.
        """
        if self._unloaded or self._changing.locked():
            return
        async with self._changing:
            before = self._seen
            try:
                await self._scan()
            except PlatformError as error:
                # A volume that is away for a moment must not take down what is loaded.
                if self._problem != error.message:
                    log.warning("model %s: %s", self.settings.id, error.message)
                    self._problem = error.message
                return
            settled = {n for n, disk in self._seen.items() if before.get(n) == disk}
            await self._adapt(settled)
            await self._revive(settled)

    async def reload(self) -> None:
        """Load every wanted version anew; what was loaded goes on serving where that fails.

        Those that could not be loaded are tried again, and an older one is loaded for each that
        still can't be.

        Raises:
            PlatformError: INVALID_ARGUMENT with the first version's reason.
        """
        async with self._changing:
            await self._scan()
            self._unloaded = False
            for version in self._versions.values():
                version.tried = ()
            problem: PlatformError | None = None
            tried: set[str] = set()
            while left := [number for number in self._wanted() if number not in tried]:
                tried.add(left[0])
                found = await self._load(left[0])
                problem = problem or found
            self._retire_unwanted()
            if problem is not None:
                raise problem
            if not self.available:
                raise PlatformError(
                    Code.INVALID_ARGUMENT,
                    "There is no version that the model's version_policy asks for.",
                    param="model",
                )

    async def unload(self) -> None:
        """Retire every version; returns when their requests are finished."""
        async with self._changing:
            self._unloaded = True
            for version in self._versions.values():
                self._retire(version, "unloaded")
        await asyncio.gather(*self._draining)

    async def _scan(self) -> None:
        self._seen = await asyncio.to_thread(lambda: scan(base_path(self.settings.source)))

    def _wanted(self) -> list[str]:
        """Return what the policy asks for, as if versions that can't be loaded were not there."""
        able = {
            number: disk
            for number, disk in self._seen.items()
            if (version := self._versions.get(number)) is None
            or version.loaded
            or version.tried != disk.fingerprint
        }
        policy = self.settings.version_policy
        return wanted(able, latest=policy.count, specific=policy.specific)

    async def _adapt(self, settled: set[str] | None = None) -> None:
        """Load what is wanted and not loaded, an older one for each that fails; retire the rest."""
        while (number := self._missing(settled)) is not None:
            await self._load(number)
        self._retire_unwanted()

    async def _revive(self, settled: set[str]) -> None:
        """Load anew, once, a version whose every inference fails."""
        for number in settled:
            version = self._versions.get(number)
            if version is None or version.loaded is None or version.revived:
                continue
            if version.loaded.lanes.dead:
                log.warning("model %s version %s is loaded anew", self.settings.id, number)
                version.revived = True
                await self._load(number)

    def _missing(self, settled: set[str] | None) -> str | None:
        for number in self._wanted():
            version = self._versions.get(number)
            loaded = version is not None and version.loaded
            if not loaded and (settled is None or number in settled):
                return number
        return None

    def _retire_unwanted(self) -> None:
        """Retire what isn't wanted, unless what is can't take its place yet."""
        wanted_now = self._wanted()
        loaded = {number for number, version in self._versions.items() if version.loaded}
        if self._seen and not (wanted_now and loaded.issuperset(wanted_now)):
            return
        for number, version in list(self._versions.items()):
            if number in wanted_now:
                continue
            if version.entry.state is VersionState.END and number not in self._seen:
                del self._versions[number]
            self._retire(version, "")

    async def _load(self, number: str) -> PlatformError | None:
        """Load a version, in place of the same one if that is loaded; returns what went wrong."""
        disk = self._seen[number]
        version = self._versions.setdefault(
            number, _Version(entry=ModelVersion(version=number, state=VersionState.START))
        )
        before = version.loaded
        if before is None:
            version.entry = ModelVersion(version=number, state=VersionState.LOADING)
        version.tried = disk.fingerprint
        try:
            made = await asyncio.to_thread(
                load, disk.path, self.settings, self._engine, self._threads
            )
        except PlatformError as error:
            log.error("model %s version %s: %s", self.settings.id, number, error.message)  # noqa: TRY400
            return self._failed(version, error)
        except Exception:
            log.exception("model %s version %s can't be loaded", self.settings.id, number)
            return self._failed(version, internal_error())
        version.loaded = made
        version.entry = ModelVersion(version=number, inputs=made.inputs, outputs=made.outputs)
        self._size_bytes = await asyncio.to_thread(size_bytes, disk.path)
        if before is not None:
            self._drain(before)
        return None

    def _failed(self, version: _Version, error: PlatformError) -> PlatformError:
        self._problem = error.message
        if version.loaded is None:
            version.entry = replace(version.entry, state=VersionState.END, reason=error.message)
        return error

    def _retire(self, version: _Version, reason: str) -> None:
        """Send a version no more requests, and release it when it has finished those it has."""
        if version.loaded is None:
            return
        loaded, version.loaded, version.tried = version.loaded, None, ()
        version.entry = replace(version.entry, state=VersionState.UNLOADING, reason=reason)
        self._drain(loaded, version)

    def _drain(self, loaded: Loaded, version: _Version | None = None) -> None:
        async def drain() -> None:
            await asyncio.to_thread(loaded.lanes.close)
            if version is not None and version.loaded is None:
                version.entry = replace(version.entry, state=VersionState.END)
                number = version.entry.version
                if number not in self._seen and self._versions.get(number) is version:
                    del self._versions[number]

        task = asyncio.create_task(drain())
        self._draining.add(task)
        task.add_done_callback(self._draining.discard)
