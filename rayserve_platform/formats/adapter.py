"""LoRA adapters in a directory: each is named by its path below that directory.

The wording of the refusals is vllm-tgis-adapter's (`grpc/adapters.py` of 0.10.0): its clients know
them.
"""

import json
import re
from pathlib import Path

from rayserve_platform.core.errors import Code, PlatformError

ID = re.compile(r"[A-Za-z0-9_/-]+")
SHOWN_CHARS = 200


def no_store() -> PlatformError:
    """Return what is said where there is no directory of adapters."""
    return _refused("adapter_id supplied but no adapter store was configured")


def not_retrieved(adapter_id: str, reason: str) -> PlatformError:
    """Return what is said of an adapter that can't be had."""
    return _refused(f"can't retrieve adapter with id '{adapter_id[:SHOWN_CHARS]}': {reason}")


def find_adapter(store: Path, adapter_id: str) -> Path:
    """Return the directory of a LoRA adapter; never one outside of `store`.

    Raises:
        PlatformError: INVALID_ARGUMENT when the id is none, leads out of `store`, or there is no
            such adapter.
    """
    root = store.resolve()
    try:
        path = (root / adapter_id).resolve() if ID.fullmatch(adapter_id) else None
        inside = path is not None and path != root and path.is_relative_to(root)
        if path is None or not inside:
            shown = adapter_id[:SHOWN_CHARS]
            raise _refused(
                f"Invalid adapter id '{shown}', must contain only alphanumeric, _ and - and /"
            )
        if not path.is_dir():
            raise not_retrieved(adapter_id, "directory does not exist")
        content = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise not_retrieved(adapter_id, "invalid adapter: no adapter_config.json found") from None
    except (OSError, ValueError):
        # The name is too long for a file system, or what is there is no JSON.
        raise not_retrieved(adapter_id, "invalid adapter: it cannot be read") from None
    kind = content.get("peft_type") if isinstance(content, dict) else None
    if kind != "LORA":
        raise _refused(f"adapter type {str(kind)[:SHOWN_CHARS]} is not currently supported")
    return path


def _refused(message: str) -> PlatformError:
    return PlatformError(Code.INVALID_ARGUMENT, message, param="adapter_id")
