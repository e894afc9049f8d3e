"""The one exception a caller of this package has to expect."""

from __future__ import annotations


class BenchError(Exception):
    """A measurement can't go on; the message says what is wrong and what to do."""
