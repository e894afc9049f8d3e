"""Caikit's model format: a directory with `config.yml` and the artifacts it points to.

The identities of modules and the keys of their configs are those that caikit-nlp 0.5 writes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from rayserve_platform.formats.weights import inside, unusable

CONFIG = "config.yml"

Kind = Literal["embedding", "cross-encoder", "text-generation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A kind of Caikit module, as its config names it. `key` points to the artifacts."""

    kind: Kind
    id: str
    key: str
    name: str
    version: str
    python_class: str


MODULES = {
    module.id: module
    for module in (
        Module(
            kind="embedding",
            id="eeb12558-b4fa-4f34-a9fd-3f5890e9cd3f",
            key="artifacts_path",
            name="EmbeddingModule",
            version="0.0.1",
            python_class="caikit_nlp.modules.text_embedding.embedding.EmbeddingModule",
        ),
        Module(
            kind="cross-encoder",
            id="1673f8f2-726f-48cb-93a1-540c81f0f3c9",
            key="artifacts_path",
            name="CrossEncoderModule",
            version="0.0.1",
            python_class="caikit_nlp.modules.text_embedding.crossencoder.CrossEncoderModule",
        ),
        Module(
            kind="text-generation",
            id="f9181353-4ccf-4572-bd1e-f12bcda26792",
            key="artifact_path",
            name="Text Generation",
            version="0.1.0",
            python_class="caikit_nlp.modules.text_generation.text_generation_local.TextGeneration",
        ),
    )
}
"""Modules that are served, by `module_id`."""

NOT_SERVED = {
    "6655831b-960a-4dc5-8df4-867026e2cd41": "prompt tuning",
    "42a7d920-8b7e-4e1f-81fb-8ab851a80c99": "span classification",
    "d21107ca-d579-4321-aedd-3099a526e0dd": "sequence classification",
    "1e04e21b-7009-499e-abdd-41e5984c2e7d": "sentence splitting",
}
"""Further modules of caikit-nlp, to refuse them by what they do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaikitModel:
    """A Caikit model on disk: what kind of module it is, and the directory of its artifacts."""

    module: Module
    artifacts: Path


def is_caikit(directory: Path) -> bool:
    """Whether a directory has Caikit's config file."""
    return (directory / CONFIG).is_file()


def read(directory: Path) -> CaikitModel:
    """Read a Caikit model's config.

    Raises:
        PlatformError: INVALID_ARGUMENT if the config can't be read, names a module that is not
            served, or artifacts that are missing or outside the directory.
    """
    config = _config(directory / CONFIG)
    module = _module(config)
    path = config.get(module.key)
    if not isinstance(path, str) or not path:
        raise unusable(f"{CONFIG}: '{module.key}' must name the directory of the artifacts")
    artifacts = inside(directory, path, f"{CONFIG}: {module.key}")
    if not artifacts.is_dir():
        raise unusable(f"{CONFIG}: {module.key} names '{path}', and there is no such directory")
    return CaikitModel(module=module, artifacts=artifacts)


def _config(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise unusable(f"{CONFIG} is missing or can't be read") from error
    except (ValueError, yaml.YAMLError) as error:
        raise unusable(f"{CONFIG} is not YAML") from error
    if not isinstance(content, dict):
        raise unusable(f"{CONFIG} holds no settings")
    return content


def _module(config: dict[str, Any]) -> Module:
    module_id = str(config.get("module_id", ""))
    known = MODULES.get(module_id)
    if known is not None:
        return known
    served = ", ".join(module.kind for module in MODULES.values())
    if not module_id:
        raise unusable(f"{CONFIG}: 'module_id' is required; served are {served}")
    what = NOT_SERVED.get(module_id, "an unknown module")
    raise unusable(f"{CONFIG}: module_id '{module_id[:100]}' is {what}; served are {served}")
