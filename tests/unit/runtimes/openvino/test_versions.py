"""Versions come and go while the model serves, and a bad one takes nothing down."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from rayserve_platform.core.errors import Code
from tests.unit.runtimes.openvino.conftest import (
    ONES,
    Start,
    asked,
    factor,
    look,
    put,
    refusal,
    spoil,
    states,
)


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ({}, {"3"}),
        ({"latest": 2}, {"2", "3"}),
        ({"all": True}, {"1", "2", "3"}),
        ({"specific": [1, 3, 9]}, {"1", "3"}),
    ],
)
async def test_the_policy_says_which_versions_are_served(
    start: Start, tmp_path: Path, policy: dict[str, Any], served: set[str]
) -> None:
    for number in (1, 2, 3):
        put(tmp_path, number)
    runtime = await start(tmp_path, {"version_policy": policy})
    assert await states(runtime) == dict.fromkeys(served, "AVAILABLE")
    for version in served:
        assert await factor(runtime, version) == int(version)
    assert await factor(runtime) == 3


async def test_a_new_version_takes_over_and_the_old_one_ends(start: Start, tmp_path: Path) -> None:
    put(tmp_path, 1)
    runtime = await start(tmp_path)
    put(tmp_path, 2)
    await look(runtime, 1)
    assert await factor(runtime) == 1  # its files may still be being copied
    await look(runtime, 1)
    assert await factor(runtime) == 2
    assert await states(runtime) == {"1": "END", "2": "AVAILABLE"}
    assert (await refusal(factor(runtime, "1"))).code is Code.UNAVAILABLE


async def test_an_older_version_comes_back_when_the_newer_one_is_removed(
    start: Start, tmp_path: Path
) -> None:
    put(tmp_path, 1)
    put(tmp_path, 2)
    runtime = await start(tmp_path)
    shutil.rmtree(tmp_path / "2")
    await look(runtime)
    assert await factor(runtime) == 1
    assert await states(runtime) == {"1": "AVAILABLE"}


async def test_a_bad_version_says_why_and_the_old_one_serves_on(
    start: Start, tmp_path: Path
) -> None:
    put(tmp_path, 1)
    runtime = await start(tmp_path)
    spoil(tmp_path, 2)
    await look(runtime)
    assert await states(runtime) == {"1": "AVAILABLE", "2": "END"}
    (card,) = await runtime.describe()
    assert card.problem == ""
    assert "can't read the model" in card.versions[1].reason
    assert str(tmp_path) not in card.versions[1].reason
    assert await factor(runtime) == 1
    error = await refusal(factor(runtime, "2"))
    assert error.code is Code.UNAVAILABLE
    put(tmp_path, 2)
    await look(runtime)
    assert await factor(runtime) == 2


async def test_a_start_with_a_bad_version_serves_the_one_before(
    start: Start, tmp_path: Path
) -> None:
    for number in (1, 2):
        put(tmp_path, number)
    spoil(tmp_path, 3)
    runtime = await start(tmp_path)
    assert await states(runtime) == {"2": "AVAILABLE", "3": "END"}
    assert await factor(runtime) == 2
    put(tmp_path, 3)
    await look(runtime)
    assert await factor(runtime) == 3
    assert (await states(runtime))["2"] == "END"


async def test_the_old_versions_stay_until_all_new_ones_are_there(
    start: Start, tmp_path: Path
) -> None:
    for number in (1, 2):
        put(tmp_path, number)
    runtime = await start(tmp_path, {"version_policy": {"latest": 2}})
    put(tmp_path, 3)
    await look(runtime, 1)
    assert await states(runtime) == {"1": "AVAILABLE", "2": "AVAILABLE"}
    await look(runtime, 1)
    assert await states(runtime) == {"1": "END", "2": "AVAILABLE", "3": "AVAILABLE"}


async def test_a_bad_version_is_not_tried_again_until_its_files_change(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, 1)
    runtime = await start(tmp_path)
    tried: list[str] = []
    served = runtime._models["m"]
    own = served._load

    async def counted(number: str) -> Any:
        tried.append(number)
        return await own(number)

    monkeypatch.setattr(served, "_load", counted)
    spoil(tmp_path, 2)
    await look(runtime, 5)
    assert tried == ["2"]


async def test_a_folder_that_is_away_for_a_while_takes_nothing_down(
    start: Start, tmp_path: Path
) -> None:
    base = tmp_path / "m"
    put(base, 1)
    runtime = await start(base)
    base.rename(tmp_path / "away")
    await look(runtime)
    assert await factor(runtime) == 1


async def test_a_version_being_replaced_finishes_its_requests(start: Start, tmp_path: Path) -> None:
    put(tmp_path, 1)
    # They wait for company that never comes, until the version is retired.
    runtime = await start(tmp_path, openvino={"max_delay_ms": 10_000})
    asking = [asyncio.create_task(factor(runtime)) for _ in range(3)]
    await asyncio.sleep(0)
    put(tmp_path, 2)
    await look(runtime)
    assert await asyncio.gather(*asking) == [1, 1, 1]
    assert (await states(runtime))["2"] == "AVAILABLE"


async def test_polling_finds_a_new_version_by_itself(start: Start, tmp_path: Path) -> None:
    put(tmp_path, 1)
    runtime = await start(tmp_path, poll_s=0.01)
    put(tmp_path, 2)
    async with asyncio.timeout(60):
        while await factor(runtime) != 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_requests_go_on_while_versions_change(start: Start, tmp_path: Path) -> None:
    put(tmp_path, 1)
    runtime = await start(tmp_path, poll_s=0.01)
    stop = False
    answers: list[float] = []

    async def client() -> None:
        while not stop:
            found = await runtime.infer(asked(x=ONES))
            answers.append(float(found.outputs[0].data[0, 0]))

    clients = [asyncio.create_task(client()) for _ in range(4)]
    for number in range(2, 6):
        put(tmp_path, number)
        async with asyncio.timeout(60):
            while answers[-1:] != [number]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    stop = True
    await asyncio.gather(*clients)
    assert set(answers) == {1, 2, 3, 4, 5}
