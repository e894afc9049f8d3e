"""Models and versions that are loaded and unloaded by request, and folders of models."""

import os
from pathlib import Path

import pytest

from rayserve_platform.core.errors import Code
from rayserve_platform.core.tensors import VersionState
from rayserve_platform.formats.versions import OnDisk, scan
from rayserve_platform.runtimes.openvino import served
from rayserve_platform.runtimes.openvino.engine import OpenVINORuntime
from tests.unit.runtimes.openvino.conftest import (
    Start,
    factor,
    look,
    put,
    refusal,
    settings,
    spoil,
    states,
)
from tests.unit.runtimes.openvino.models import times


async def test_unloading_ends_every_version_until_it_is_loaded_again(
    start: Start, tmp_path: Path
) -> None:
    put(tmp_path, 1)
    runtime = await start(tmp_path)
    await runtime.unload_model("m")
    (card,) = await runtime.describe()
    assert [(v.state, v.reason) for v in card.versions] == [(VersionState.END, "unloaded")]
    assert card.problem == ""
    assert (await refusal(factor(runtime))).code is Code.UNAVAILABLE
    put(tmp_path, 2)
    await look(runtime)
    assert (await refusal(factor(runtime))).code is Code.UNAVAILABLE
    await runtime.load_model("m", {})
    assert await factor(runtime) == 2


async def test_loading_anew_takes_changed_files_or_keeps_what_serves(
    start: Start, tmp_path: Path
) -> None:
    put(tmp_path, 1)
    runtime = await start(tmp_path)
    put(tmp_path, 1, factor=5)
    assert await factor(runtime) == 1
    await runtime.load_model("m", {})
    assert await factor(runtime) == 5
    (tmp_path / "1/model.xml").write_bytes(b"<net")
    error = await refusal(runtime.load_model("m", {}))
    assert error.code is Code.INVALID_ARGUMENT
    assert await factor(runtime) == 5
    assert await states(runtime) == {"1": "AVAILABLE"}


async def test_loading_anew_loads_an_older_version_where_the_newest_cannot_be(
    start: Start, tmp_path: Path
) -> None:
    put(tmp_path, 1)
    runtime = await start(tmp_path)
    await runtime.unload_model("m")
    spoil(tmp_path, 2)
    error = await refusal(runtime.load_model("m", {}))
    assert "can't read the model" in error.message
    assert await factor(runtime) == 1
    put(tmp_path, 2)
    await runtime.load_model("m", {})
    assert await factor(runtime) == 2


async def test_what_cannot_be_loaded_by_request_is_refused(start: Start, tmp_path: Path) -> None:
    put(tmp_path, 1)
    runtime = await start(tmp_path)
    for verb in (runtime.load_model("other", {}), runtime.unload_model("other")):
        assert (await refusal(verb)).code is Code.NOT_FOUND
    error = await refusal(runtime.load_model("m", {"config": "{}"}))
    assert (error.code, error.param) == (Code.INVALID_ARGUMENT, "parameters")


async def test_a_folder_of_models_serves_what_can_be_served(start: Start, tmp_path: Path) -> None:
    put(tmp_path / "one", 1)
    times(tmp_path / "flat", 7)
    spoil(tmp_path / "broken", 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / ".hidden").mkdir()
    runtime = await start(models_dir=str(tmp_path))
    cards = {card.id: card for card in await runtime.describe()}
    assert set(cards) == {"one", "flat", "broken", "empty"}
    assert "can't read the model" in cards["broken"].problem
    assert cards["empty"].problem
    assert await factor(runtime, model="one") == 1
    assert await factor(runtime, model="flat") == 7
    put(tmp_path / "late", 4)
    await look(runtime)
    assert await factor(runtime, model="late") == 4
    put(tmp_path / "asked", 3)
    await runtime.load_model("asked", {})
    assert await factor(runtime, model="asked") == 3


async def test_a_folder_that_can_be_no_model_keeps_no_other_from_serving(
    start: Start, tmp_path: Path
) -> None:
    put(tmp_path / "one", 1)
    (tmp_path / os.fsdecode(b"no-\xff-text")).mkdir()
    runtime = await start(models_dir=str(tmp_path))
    put(tmp_path / "late", 4)
    (tmp_path / os.fsdecode(b"another-\xfe")).mkdir()
    await look(runtime)
    assert {card.id for card in await runtime.describe()} == {"one", "late"}
    assert await factor(runtime, model="late") == 4


async def test_a_model_that_cannot_be_looked_at_keeps_no_other_from_changing(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unstable(base: Path) -> dict[str, OnDisk]:
        if base.name == "a":
            raise RuntimeError("scripted failure")
        return scan(base)

    monkeypatch.setattr(served, "scan", unstable)
    put(tmp_path / "a", 1)
    put(tmp_path / "b", 1)
    runtime = await start(models_dir=str(tmp_path))
    put(tmp_path / "b", 2)
    await look(runtime)
    assert await factor(runtime, model="b") == 2
    cards = {card.id: card for card in await runtime.describe()}
    assert cards["a"].problem == "internal error"
    monkeypatch.undo()
    await look(runtime)
    assert await factor(runtime, model="a") == 1


async def test_nothing_to_serve_fails_the_start_with_the_reason(tmp_path: Path) -> None:
    spoil(tmp_path / "broken", 1)
    for args, words in (
        ({"models": [{"id": "m", "source": str(tmp_path / "nowhere")}]}, "no such model"),
        ({"models": [{"id": "m", "source": str(tmp_path / "broken")}]}, "can't read the model"),
        ({"models_dir": str(tmp_path / "nowhere")}, "models_dir: No such file"),
        ({"models": [{"id": "m", "source": "s3://bucket"}]}, "'s3://' is not supported"),
    ):
        error = await refusal(OpenVINORuntime(settings(**args)).start())
        assert words in error.message
        assert str(tmp_path) not in error.message
    folder = tmp_path / "m"
    put(folder, 1)
    policy = {"version_policy": {"specific": [2]}}
    runtime = OpenVINORuntime(settings(models=[{"id": "m", "source": str(folder), **policy}]))
    assert "no version" in (await refusal(runtime.start())).message
