"""The OpenVINO runtime: the models of a repository in a replica, behind the seam."""

import asyncio
import importlib.metadata
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from rayserve_platform.core.cards import ModelCard
from rayserve_platform.core.errors import Code, PlatformError, engine_unavailable, no_such_model
from rayserve_platform.core.metrics import MetricTypes
from rayserve_platform.core.runtime import PartialRuntime
from rayserve_platform.core.tensors import Infer, Inference, Tensor, Value, check
from rayserve_platform.runtimes.openvino.served import ServedModel
from rayserve_platform.settings.openvino import OpenVINOApp, OpenVINOModel

log = logging.getLogger("rayserve.openvino")


class OpenVINORuntime(PartialRuntime):
    """See the module. `start` returns when every model is loaded or known to be broken."""

    runtime = "openvino"

    def __init__(self, settings: OpenVINOApp, metrics: MetricTypes | None = None) -> None:
        self._settings = settings
        self._models: dict[str, ServedModel] = {}
        self._names: dict[str, ServedModel] = {}
        self._no_models: set[str] = set()
        self._looking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the models, one after the other, and begin to look for new versions.

        Raises:
            PlatformError: the first model's problem, if there is no model that can be served.
        """
        for model in self._settings.models:
            await self._add(model).start()
        for model in await asyncio.to_thread(self._in_folder):
            await self._add(model).start()
        if not any(model.available for model in self._models.values()):
            problems = [model.card().problem for model in self._models.values()]
            raise PlatformError(
                Code.INVALID_ARGUMENT,
                next(filter(None, problems), "no version of any model can be served"),
                param="models",
            )
        if self._settings.poll_s:
            self._looking = asyncio.create_task(self._look())

    async def stop(self) -> None:
        """Finish what runs, and release the models."""
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking
        await asyncio.gather(*(model.unload() for model in self._models.values()))

    async def describe(self) -> tuple[ModelCard, ...]:
        """Return the cards of all models, of broken and unloaded ones too."""
        return tuple(model.card() for model in self._models.values())

    async def check_health(self) -> None:
        """Raise if whatever is loaded fails whatever it is given.

        The replica would be replaced, so one model's failure must not be the others'.
        """
        if not self._models:
            raise PlatformError(Code.UNAVAILABLE, "The models are loading.")
        loaded = [one for model in self._models.values() for one in model.loaded()]
        if loaded and all(one.lanes.dead for one in loaded):
            raise engine_unavailable()

    async def infer(self, request: Infer) -> Inference:
        """Compute, together with whatever else waits."""
        model = self._model(request.model)
        loaded, version = model.find(request)
        check(request, version)
        tensors = {tensor.name: tensor.data for tensor in request.inputs}
        places = {spec.name: place for place, spec in enumerate(loaded.outputs)}
        names = request.outputs or tuple(places)
        made = await loaded.lanes.run(
            [tensors[spec.name] for spec in loaded.inputs], tuple(places[name] for name in names)
        )
        outputs = tuple(
            Tensor(name=name, datatype=loaded.outputs[places[name]].datatype, data=data)
            for name, data in zip(names, made, strict=True)
        )
        return Inference(model=model.settings.id, version=version.version, outputs=outputs)

    async def load_model(self, name: str, parameters: Mapping[str, Value | bytes]) -> None:
        """Load a model anew, or one that has appeared in `models_dir`.

        A model's settings are the application's, so no parameter is taken.
        """
        for parameter in parameters:
            raise PlatformError(
                Code.INVALID_ARGUMENT,
                f"Unknown parameter '{parameter[:200]}': a model's settings and files are the "
                "application's.",
                param="parameters",
            )
        if name not in self._names:
            for model in await asyncio.to_thread(self._in_folder):
                if model.id == name and name not in self._names:
                    self._add(model)
        await self._model(name).reload()

    async def unload_model(self, name: str) -> None:
        """Stop serving a model until it is loaded again."""
        await self._model(name).unload()

    def _model(self, name: str) -> ServedModel:
        found = self._names.get(name)
        if found is None:
            raise no_such_model(name)
        return found

    def _add(self, model: OpenVINOModel) -> ServedModel:
        version = f"openvino {importlib.metadata.version('openvino')}"
        engine = model.openvino or self._settings.openvino
        made = ServedModel(model, engine, self._settings.threads, version)
        self._models[model.id] = made
        for name in (model.id, *model.aliases):
            self._names[name] = made
        return made

    def _in_folder(self) -> list[OpenVINOModel]:
        """Return the models of `models_dir` that are not known yet.

        Raises:
            PlatformError: INVALID_ARGUMENT if the folder can't be read.
        """
        if self._settings.models_dir is None:
            return []
        try:
            entries = sorted(Path(self._settings.models_dir).expanduser().iterdir())
        except OSError as error:
            message = f"models_dir: {os.strerror(error.errno or 0)}"
            raise PlatformError(Code.INVALID_ARGUMENT, message, param="models_dir") from error
        return [model for entry in entries if (model := self._read(entry))]

    def _read(self, entry: Path) -> OpenVINOModel | None:
        """Return the model that an entry of `models_dir` is, unless it is known or none."""
        # Kubernetes mounts volumes with hidden folders of its own.
        if entry.name.startswith(".") or entry.name == "lost+found" or entry.name in self._names:
            return None
        try:
            return OpenVINOModel(id=entry.name, source=str(entry)) if entry.is_dir() else None
        except (OSError, ValidationError):
            if entry.name not in self._no_models:
                self._no_models.add(entry.name)
                log.warning("models_dir: %a can't be a model", entry.name)
            return None

    async def _look(self) -> None:
        """Look for new versions and models for as long as the runtime lives."""
        while True:
            await asyncio.sleep(self._settings.poll_s)
            await self._look_once()

    async def _look_once(self) -> None:
        try:
            for model in await asyncio.to_thread(self._in_folder):
                # It is loaded at the next look, when its files have not changed since.
                self._add(model)
        except PlatformError as error:
            log.warning("%s", error.message)
        except Exception:
            log.exception("looking for new models failed")
        for served in list(self._models.values()):
            try:
                await served.refresh()
            except Exception:
                log.exception("model %s: looking for new versions failed", served.settings.id)
