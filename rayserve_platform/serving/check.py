"""Validating a Serve config file without starting anything."""

import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.schema import ServeDeploySchema

from rayserve_platform.settings.app import App, Gateway
from rayserve_platform.settings.llm import LLMApp
from rayserve_platform.settings.model import explain
from rayserve_platform.settings.vllm import VLLMApp, argument_types

THROUGHPUT = "RAY_SERVE_THROUGHPUT_OPTIMIZED"
MESSAGE_LIMIT = "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH"


@dataclass(slots=True, kw_only=True)
class Checked:
    """What was found in a config file.

    Args:
        errors: what keeps it from running; one line each, beginning with its place in the file.
        notes: what may surprise.
        args: the typed args of each application that could be read, by application name.
    """

    content: dict[str, Any] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    args: dict[str, Any] = field(default_factory=dict)

    @property
    def routed(self) -> dict[str, Any]:
        """The applications that clients can reach, by name."""
        return {
            app["name"]: app
            for app in self.content.get("applications", [])
            if app.get("route_prefix", "/") is not None
        }


def check(path: Path) -> Checked:
    """Validate a config file: its form, Serve's own schema, and each application's args."""
    found = Checked()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        found.errors.append(f"cannot be read: {getattr(error, 'strerror', None) or error}")
        return found
    except yaml.YAMLError as error:
        found.errors.append(f"is not YAML: {' '.join(str(error).split())}")
        return found
    if not isinstance(content, dict) or not isinstance(content.get("applications"), list):
        found.errors.append("applications: a list of applications is required")
        return found
    try:
        schema = ServeDeploySchema.model_validate(content)
    except ValidationError as error:
        found.errors += explain(error)
        return found
    found.content = content
    for index, app in enumerate(content["applications"]):
        app.setdefault("name", schema.applications[index].name)
        _check_app(found, app, f"applications.{index} ({app['name']})")
    _check_together(found)
    return found


def _check_app(found: Checked, app: dict[str, Any], where: str) -> None:
    """Read an application's args as its builder would, and build it."""
    try:
        builder = _builder(app["import_path"])
        kind = next(iter(get_type_hints(builder).values()), None)
        if not (inspect.isclass(kind) and issubclass(kind, BaseModel)):
            found.notes.append(f"{where}: {app['import_path']} has no typed args; not checked")
            return
        args = kind.model_validate(app.get("args") or {})
        builder(args)
    except ValidationError as error:
        # `explain` calls the args as a whole "args".
        lines = [f"args.{line}".replace("args.args: ", "args: ", 1) for line in explain(error)]
        found.errors += [f"{where}.{line}" for line in lines]
    except (ImportError, AttributeError) as error:
        found.errors.append(f"{where}.import_path: {error}")
    except (TypeError, ValueError) as error:
        found.errors.append(f"{where}.args: {error}")
    except Exception as error:  # noqa: BLE001  # a module of the operator's own may raise anything
        found.errors.append(f"{where}.import_path: {type(error).__name__}: {error}")
    else:
        found.args[app["name"]] = args
        found.notes += [f"{where}: {note}" for note in _notes(args)]


def _builder(import_path: str) -> Any:
    module, _, attribute = import_path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _notes(args: Any) -> Iterator[str]:
    if isinstance(args, VLLMApp) and argument_types("engine") is None:
        yield "vLLM is not installed here, so its argument names were not checked"
    if isinstance(args, LLMApp) and args.engine == "auto":
        yield f"engine: auto: {args.explained}"
    if isinstance(args, App):
        for source in [model.source for model in args.listed_models() if model.source]:
            if "://" not in source and not Path(source).expanduser().exists():
                yield f"model.source: there is no {source} on this machine"
    auth = args.ingress.auth if isinstance(args, App | Gateway) else None
    file = auth.keys.file if auth is not None and auth.keys is not None else None
    if file is not None and not Path(file).exists():
        yield f"ingress.auth.keys: there is no {file} on this machine; without it no key is known"


def _check_together(found: Checked) -> None:
    """Check what applications of one file need of one another and of the cluster's options."""
    names = {app["name"] for app in found.content["applications"]}
    for name, args in found.args.items():
        if isinstance(args, Gateway):
            for model, target in args.models.items():
                if target not in names:
                    found.notes.append(
                        f"{name}: model '{model}' is served by '{target}', "
                        "which is not in this file"
                    )
                elif target in found.routed:
                    found.errors.append(
                        f"{target}: stands behind gateway '{name}' and needs route_prefix: null"
                    )
        elif isinstance(args, App) and args.topology == "runtime" and name in found.routed:
            found.errors.append(
                f"{name}: topology 'runtime' speaks no protocol and needs "
                "route_prefix: null, behind a gateway"
            )
    if not found.routed:
        found.errors.append("applications: none has a route, so no client can reach any")
    options = found.content.get("controller_options") or {}
    env = (options.get("runtime_env") or {}).get("env_vars") or {}
    if env.get(THROUGHPUT) == "1" and MESSAGE_LIMIT not in env:
        found.notes.append(
            f"controller_options: {THROUGHPUT} without {MESSAGE_LIMIT} limits a "
            "request over a handle to 4 MiB"
        )
