"""Where the tests of a runtime keep what it converts."""

from collections.abc import Iterator
from pathlib import Path

import pytest


def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of this session's own, so that a conversion is run and not found."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYSERVE_CACHE", str(folder))
        yield folder
