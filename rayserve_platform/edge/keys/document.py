"""Keys and peppers as the bytes of a file or of an entry of a Secret."""

import os
import secrets

import orjson
from pydantic import ValidationError

from rayserve_platform.edge.keys.change import KeyFault
from rayserve_platform.edge.keys.token import MIN_PEPPER_BYTES
from rayserve_platform.settings.keys import KeyFile
from rayserve_platform.settings.model import explain

PEPPER_VARIABLE = "RAYSERVE_KEYS_PEPPER"


def read_keys(raw: bytes) -> KeyFile:
    """Return the keys that bytes hold.

    Raises:
        KeyFault: saying what is wrong, without a digest in it.
    """
    try:
        content = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise KeyFault(f"no valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise KeyFault("not a file of keys: it holds no JSON object")
    try:
        return KeyFile.model_validate(content)
    except ValidationError as error:
        raise KeyFault("; ".join(explain(error)[:5])) from None


def write_keys(file: KeyFile) -> bytes:
    """Return the bytes for keys; what has its default is left out, for people who read it."""
    content = file.model_dump(mode="json", exclude_defaults=True)
    return orjson.dumps({"version": file.version, **content}, option=orjson.OPT_INDENT_2) + b"\n"


def new_pepper() -> bytes:
    """Draw a pepper, as text so that it fits everywhere."""
    return secrets.token_hex(MIN_PEPPER_BYTES).encode()


def read_pepper(raw: bytes) -> bytes:
    """Return the pepper that bytes hold; white space around it is not part of it.

    Raises:
        KeyFault: when it is too short to be one.
    """
    pepper = raw.strip()
    if len(pepper) < MIN_PEPPER_BYTES:
        raise KeyFault(f"a pepper has at least {MIN_PEPPER_BYTES} bytes, this has {len(pepper)}")
    return pepper


def pepper_of_environment() -> bytes | None:
    """Return the pepper that the environment names, if it does."""
    found = os.environ.get(PEPPER_VARIABLE)
    return None if found is None else read_pepper(found.encode())
