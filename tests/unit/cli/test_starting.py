"""What `rayserve run` makes of a config before it starts Ray; e2e tests see to the start."""

import logging
import os
from concurrent.futures import Future
from typing import Any

import pytest
import ray

from rayserve_platform.cli import starting


def _config(**variables: str) -> dict[str, Any]:
    options = {"runtime_env": {"env_vars": variables}}
    return {"controller_options": options, "applications": [{"name": "one"}]}


def test_the_controllers_variables_become_the_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_SERVE_ONE", "from outside")
    monkeypatch.setenv("RAY_SERVE_OTHER", "stays")
    left = starting.with_variables_of_the_cluster(_config(RAY_SERVE_ONE="from the config"))
    assert left == {"applications": [{"name": "one"}]}
    assert os.environ["RAY_SERVE_ONE"] == "from the config"
    assert os.environ["RAY_SERVE_OTHER"] == "stays"


def test_a_config_whose_variables_refer_to_others_is_left_to_ray(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LIBRARIES", "/usr/lib")
    config = _config(LIBRARIES="/opt/lib:${LIBRARIES}")
    assert starting.with_variables_of_the_cluster(config) == config
    assert os.environ["LIBRARIES"] == "/usr/lib"


@pytest.mark.parametrize("options", [{}, {"controller_options": None}])
def test_a_config_without_variables_stays_as_it_is(options: dict[str, Any]) -> None:
    config = {"applications": [], **options}
    assert starting.with_variables_of_the_cluster(config)["applications"] == []


def test_what_keeps_serve_from_starting_is_raised_instead_of_waiting_for_its_controller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray.util, "list_named_actors", lambda **_: [])
    started: Future[None] = Future()
    started.set_exception(TimeoutError("no proxies"))
    with pytest.raises(TimeoutError, match="no proxies"):
        starting.wait_for_controller(started)


def test_only_serves_own_controller_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([[], [{"name": "X", "namespace": "mine"}], [{"name": "C", "namespace": "serve"}]])
    monkeypatch.setattr(ray.util, "list_named_actors", lambda **_: next(looks))
    starting.wait_for_controller(Future())
    assert list(looks) == []


def test_of_what_serve_says_only_the_false_alarm_is_kept_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = logging.getLogger("ray.serve")
    log.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO, "ray.serve"), starting.without_a_false_alarm():
            log.info('Connecting to existing Serve app in namespace "serve". New …')
            log.info('Started Serve in namespace "serve".')
        log.info("Connecting to existing Serve app")
    finally:
        log.removeHandler(caplog.handler)
    assert [*dict.fromkeys(caplog.messages)] == [
        'Started Serve in namespace "serve".',
        "Connecting to existing Serve app",
    ]
