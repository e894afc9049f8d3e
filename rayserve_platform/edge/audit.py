"""The audit log: one JSON line a decision. Never a prompt, never an answer, never a secret.

What a line says comes from the request's record, which holds none of these.
"""

import logging
import logging.handlers
import os
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path

import orjson

from rayserve_platform.edge.observe import Record
from rayserve_platform.settings.audit import Audit

log = logging.getLogger("rayserve.audit")


class AuditLog:
    """Writes lines on the logger `rayserve.audit`, or to a file of its own.

    Raises:
        OSError: when the file can't be opened.
    """

    def __init__(self, settings: Audit) -> None:
        self._file = None if settings.file is None else _OwnersFile(settings.file)

    def write(self, record: Record, *, duration_s: float) -> None:
        """Write the line of a request that has been answered."""
        principal = record.principal
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": record.request_id,
            "principal": None if principal is None else principal.id,
            "authenticated_by": None if principal is None else principal.rule,
            "key_id": None if principal is None else principal.key_id,
            "protocol": record.protocol,
            "route": record.route,
            "model": record.model,
            "decision": "deny" if record.refused_by else "allow",
            "rule": record.refused_by or None,
            "code": record.code,
            "duration_ms": round(duration_s * 1000, 2),
            "prompt_tokens": record.prompt_tokens,
            "generated_tokens": record.generated_tokens,
        }
        text = orjson.dumps(line).decode()
        if self._file is None:
            log.info(text)
        else:
            self._file.handle(log.makeRecord(log.name, logging.INFO, __file__, 0, text, (), None))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


class _OwnersFile(logging.handlers.WatchedFileHandler):
    """A file that only its owner may read, from its first moment, whatever the umask."""

    def __init__(self, path: str) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path, encoding="utf-8")
        self.setFormatter(logging.Formatter("%(message)s"))

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(descriptor, "a", encoding="utf-8")
