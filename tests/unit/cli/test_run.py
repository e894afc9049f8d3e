"""`rayserve run` around its cluster, without one."""

from typing import Any

import click
import pytest
from ray import serve

from rayserve_platform.cli import run


def test_where_ray_did_not_start_no_other_is_started_to_stop_serve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def fail(content: dict[str, Any], *, dashboard: bool) -> None:
        raise ValueError("no room")

    monkeypatch.setattr(run, "start", fail)
    monkeypatch.setattr(serve, "shutdown", lambda: asked.append("shutdown"))
    failure = pytest.raises(click.ClickException, match="Ray did not start: no room")
    with failure, run._serving({}, dashboard=False):
        pass
    assert asked == []
