"""A set of keys as it is asked on every request: built once, never changed, replaced as a whole."""

import hmac
from collections.abc import Callable
from datetime import datetime

from rayserve_platform.edge.auth.keystore import Key
from rayserve_platform.edge.keys.change import check_pepper
from rayserve_platform.edge.keys.token import digest, parse
from rayserve_platform.settings.keys import ApiKey, KeyFile


class KeyRing:
    """Keys by id.

    Args:
        file: the keys.
        pepper: that their digests were made with.
        clock: Unix seconds now.

    Raises:
        KeyFault: when the digests were made with another pepper.
    """

    def __init__(self, file: KeyFile, pepper: bytes, clock: Callable[[], float]) -> None:
        check_pepper(file, pepper)
        self._pepper = pepper
        self._clock = clock
        self._entries = {key.id: _Entry(key) for key in file.keys if not key.disabled}
        self._nobody = digest(pepper, "", "")

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, token: str) -> Key | None:
        """Return the key that a token is, where it counts now.

        An id that nobody has costs as much as a wrong secret, so that time tells neither.
        """
        parsed = parse(token)
        if parsed is None:
            return None
        found = digest(self._pepper, *parsed)
        entry = self._entries.get(parsed[0])
        expected = self._nobody if entry is None else entry.digest
        same = hmac.compare_digest(found, expected)
        if not same or entry is None:
            return None
        return entry.key if entry.begins <= self._clock() < entry.ends else None


class _Entry:
    """A key with its times as numbers."""

    __slots__ = ("begins", "digest", "ends", "key")

    def __init__(self, kept: ApiKey) -> None:
        self.digest = bytes.fromhex(kept.digest)
        self.begins = _seconds(kept.not_before, float("-inf"))
        self.ends = _seconds(kept.expires, float("inf"))
        self.key = Key(
            id=kept.id,
            principal=kept.principal,
            groups=kept.groups,
            models=None if kept.models is None else frozenset(kept.models),
            protocols=None if kept.protocols is None else frozenset(kept.protocols),
            load=kept.load,
            identity={"note": kept.note} if kept.note else {},
        )


def _seconds(moment: datetime | None, default: float) -> float:
    return default if moment is None else moment.timestamp()
