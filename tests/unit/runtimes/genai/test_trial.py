"""Guides that would end the process that compiles them, in one that may end."""

import json
import os
import resource
import signal
from typing import Any

import openvino_genai
import pytest

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import Guided
from rayserve_platform.formats.source import find
from rayserve_platform.runtimes.genai.examiner import Examiner
from rayserve_platform.runtimes.genai.trial import Trial
from tests.unit.runtimes.genai.conftest import SOURCE

pytestmark = pytest.mark.llm

MODEL: dict[str, Any] = {"logits": 49152, "end_ids": frozenset({2})}
LIMIT_S = 2
ROOM_BYTES = 192 << 20
SLOW = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(800)}}
LETTERS = "abcdefghij"


class Watched(Trial):
    """Counts how often it had to be told of."""

    def __init__(self):
        self.forgotten = 0
        super().__init__(
            find(SOURCE), **MODEL, forget=self._count, limit_s=LIMIT_S, room_bytes=ROOM_BYTES
        )

    def _count(self):
        self.forgotten += 1


@pytest.fixture(scope="module")
def trial():
    made = Watched()
    yield made
    made.stop()


@pytest.mark.parametrize(
    ("guided", "why"),
    [
        (Guided(kind="regex", value="(" * 20_000 + "a" + ")" * 20_000), "nested too deeply"),
        (Guided(kind="regex", value="(((a{100}){100}){100}){100}"), "too much memory"),
        (Guided(kind="json_schema", value=json.dumps(SLOW)), f"longer than {LIMIT_S} s"),
    ],
    ids=["brackets", "memory", "time"],
)
def test_what_can_not_be_compiled_is_refused_and_the_next_is_examined(trial, guided, why):
    with pytest.raises(PlatformError, match=why) as caught:
        trial.check(guided)
    assert (caught.value.code, caught.value.param) == (Code.INVALID_ARGUMENT, "guided")
    trial.check(Guided(kind="regex", value="[a-c]+"))


def test_a_process_that_was_killed_is_blamed_on_no_guide(trial):
    before, forgotten = trial.pid, trial.forgotten
    os.kill(before, signal.SIGKILL)
    os.waitid(os.P_PID, before, os.WEXITED | os.WNOWAIT)
    trial.check(Guided(kind="regex", value="a"))
    assert trial.pid != before
    assert trial.forgotten == forgotten + 1


def test_a_full_process_is_replaced_and_all_is_forgotten(trial):
    before, forgotten = trial.pid, trial.forgotten
    for letter in LETTERS:
        trial.check(Guided(kind="regex", value=letter * 100_000))
        if trial.pid != before:
            break
    assert trial.forgotten == forgotten  # it is for the last one to be compiled elsewhere too
    trial.check(Guided(kind="regex", value="a"))
    assert trial.forgotten == forgotten + 1


def test_what_was_compiled_is_forgotten_when_that_is_asked_for():
    examiner = Examiner(openvino_genai.Tokenizer(str(find(SOURCE))), **MODEL)
    examiner.forget()
    sizes = [_resident()]
    for letters in (LETTERS[:4], LETTERS[4:8]):
        for letter in letters:
            examiner.check(Guided(kind="regex", value=letter * 60_000))
        sizes.append(_resident())
        examiner.forget()
    assert sizes[2] - sizes[1] < (sizes[1] - sizes[0]) / 2  # the room of the first ones is used


def _resident():
    with open("/proc/self/statm") as file:  # noqa: PTH123  # no path of ours
        return int(file.read().split()[1]) * resource.getpagesize()
