"""What `rayserve keys` does to a file of keys, without any I/O: each verb returns a new file."""

import difflib
from datetime import datetime, timedelta
from typing import Any

from rayserve_platform.edge.keys.token import digest, fingerprint, mint, written
from rayserve_platform.settings.keys import ApiKey, KeyFile


class KeyFault(Exception):
    """Something about keys that a person has to mend; the text says what."""


def check_pepper(file: KeyFile, pepper: bytes) -> None:
    """Refuse a pepper that the file's digests were not made with.

    Raises:
        KeyFault: since with it every key would be unknown.
    """
    if file.pepper is not None and file.pepper != fingerprint(pepper):
        raise KeyFault(
            "the pepper is not the one that these keys were made with: with it every key would be "
            f"unknown (fingerprint {fingerprint(pepper)}, the keys' is {file.pepper})"
        )


def find(file: KeyFile, key_id: str) -> ApiKey:
    """Return the key with an id.

    Raises:
        KeyFault: naming the nearest id.
    """
    known = {key.id: key for key in file.keys}
    if key_id in known:
        return known[key_id]
    near = difflib.get_close_matches(key_id, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise KeyFault(f"there is no key with the id '{key_id[:80]}'{hint}")


def create(
    file: KeyFile, pepper: bytes, *, now: datetime, **attributes: Any
) -> tuple[KeyFile, ApiKey, str]:
    """Add a key; returns the new file, what it keeps of the key, and the key itself.

    Raises:
        pydantic.ValidationError: when an attribute of `ApiKey` is wrong.
    """
    check_pepper(file, pepper)
    taken = {key.id for key in file.keys}
    key_id, secret = mint()
    while key_id in taken:
        key_id, secret = mint()
    kept = ApiKey(
        id=key_id,
        digest=digest(pepper, key_id, secret).hex(),
        created=now,
        **attributes,
    )
    keys = (*file.keys, kept)
    return KeyFile(pepper=fingerprint(pepper), keys=keys), kept, written(key_id, secret)


def revoke(file: KeyFile, key_id: str) -> KeyFile:
    """Disable a key for good; it stays in the file, so that the audit log's ids can be read."""
    return _replaced(file, find(file, key_id).model_copy(update={"disabled": True}))


def remove(file: KeyFile, key_id: str) -> KeyFile:
    """Leave a key out, as if it had never been."""
    find(file, key_id)
    keys = tuple(key for key in file.keys if key.id != key_id)
    return KeyFile(pepper=file.pepper if keys else None, keys=keys)


def rotate(
    file: KeyFile, pepper: bytes, key_id: str, *, now: datetime, overlap: timedelta
) -> tuple[KeyFile, ApiKey, str]:
    """Give a key's owner a new one that may do the same; the old one ends after `overlap`.

    The new key lives as long as the old one was meant to. One for later stays for later.

    Raises:
        KeyFault: when the old key has ended already: what nobody may use, nobody may prolong.
    """
    old = find(file, key_id)
    if old.state(now) in ("disabled", "expired"):
        raise KeyFault(f"the key {key_id} is {old.state(now)}; create a new one instead")
    is_early = old.state(now) == "not yet"
    begins = old.not_before if is_early else None
    lifetime = None if old.expires is None else old.expires - (old.not_before or old.created)
    same = old.model_dump(include={"principal", "groups", "models", "protocols", "load", "note"})
    expires = None if lifetime is None else (begins or now) + lifetime
    changed, new, token = create(file, pepper, now=now, not_before=begins, expires=expires, **same)
    end = now + overlap
    if overlap <= timedelta(0) or (begins is not None and end <= begins):
        ended = old.model_copy(update={"disabled": True})
    else:
        end = end if old.expires is None else min(end, old.expires)
        ended = ApiKey(**{**old.model_dump(), "expires": end, "not_before": begins})
    return _replaced(changed, ended), new, token


def _replaced(file: KeyFile, changed: ApiKey) -> KeyFile:
    keys = tuple(changed if key.id == changed.id else key for key in file.keys)
    return file.model_copy(update={"keys": keys})
