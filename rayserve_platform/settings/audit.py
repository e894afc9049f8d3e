"""Where decisions on requests are written down."""

from pydantic import Field

from rayserve_platform.settings.model import Settings


class Audit(Settings):
    """The audit log: one JSON line a request, of who asked what and whether it was let in."""

    enabled: bool | None = None
    """Null: where the ingress has token checks or quotas."""
    file: str | None = Field(default=None, min_length=1)
    """Lines go to this file, its owner's alone, instead of the replica's log. It may be moved away
    while serving (logrotate): a new one is begun."""
