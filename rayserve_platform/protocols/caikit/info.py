"""What the server says of itself and its models, over both transports."""

from collections.abc import Sequence
from typing import Any

import rayserve_platform
from rayserve_platform.core.cards import ModelCard
from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.protocols.caikit.tasks import (
    CROSS_ENCODER_MODULE,
    EMBEDDING_MODULE,
    module_of,
)
from rayserve_platform.protocols.caikit.translate import SHOWN_NAME_CHARS


def runtime() -> dict[str, Any]:
    """Return the version document."""
    version = rayserve_platform.__version__
    return {"runtime_version": version, "python_packages": {"rayserve_platform": version}}


async def models(catalog: Catalog, names: Sequence[str]) -> list[dict[str, Any]]:
    """Describe the models named, or all; one that could not be loaded says `loaded: false`.

    Raises:
        PlatformError: NOT_FOUND for the first name that is not served.
    """
    cards = [served.card for served in await catalog.described()]
    if not names:
        return [_model(card) for card in cards]
    known = {name: card for card in cards for name in (card.id, *card.aliases)}
    for name in names:
        if name not in known:
            shown = name[:SHOWN_NAME_CHARS]
            raise PlatformError(Code.NOT_FOUND, f"Model {shown} is not loaded")
    return [_model(known[name]) for name in names]


def _model(card: ModelCard) -> dict[str, Any]:
    module = module_of(card)
    metadata: dict[str, Any] = {}
    if module in (EMBEDDING_MODULE, CROSS_ENCODER_MODULE):
        metadata["max_seq_length"] = card.max_model_len
    if module is EMBEDDING_MODULE and card.dimension is not None:
        metadata["sentence_embedding_dimension"] = card.dimension
    return {
        "model_path": card.root,
        "name": card.id,
        "size": card.size_bytes,
        "metadata": metadata,
        "loaded": not card.problem,
        "module_id": module.id,
        "module_metadata": {"name": module.name, "version": module.version},
    }
