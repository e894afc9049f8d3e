"""Guides are examined apart from everything else, and not for ever."""

import threading
import time

import pytest

from rayserve_platform.core.errors import Code
from rayserve_platform.core.messages import Guided
from rayserve_platform.runtimes.genai.guides import Guides

GUIDED = Guided(kind="regex", value="a")


class Client:
    """Hears how its guide fared."""

    def __init__(self):
        self.heard = threading.Event()
        self.outcome = None

    def hear(self, outcome="ready"):
        self.outcome = outcome
        self.heard.set()

    def put(self, guides, number):
        guides.put(number, GUIDED, ready=self.hear, refuse=self.hear)

    def wait(self):
        assert self.heard.wait(20)
        return self.outcome


@pytest.fixture
def gate():
    """Opened, it lets a guide's compilation come to its end."""
    made = threading.Event()
    yield made
    made.set()


def test_guides_are_examined_in_their_order():
    guides, clients = Guides(lambda guided: None), [Client() for _ in range(3)]
    for number, client in enumerate(clients):
        client.put(guides, number)
    assert [client.wait() for client in clients] == ["ready"] * 3


def test_those_who_waited_behind_one_that_takes_long_may_come_again():
    guides = Guides(lambda guided: time.sleep(1.1), patience_s=1)
    slow, behind, last = Client(), Client(), Client()
    slow.put(guides, 1)
    behind.put(guides, 2)
    assert slow.wait() == "ready"
    assert behind.wait().code is Code.RESOURCE_EXHAUSTED
    assert behind.wait().retry_after_s
    last.put(guides, 3)
    assert last.wait() == "ready"


def test_nothing_is_heard_of_one_that_was_left(gate):
    guides = Guides(lambda guided: gate.wait())
    left, other = Client(), Client()
    left.put(guides, 1)
    other.put(guides, 2)
    guides.leave(1)
    gate.set()
    assert other.wait() == "ready"
    assert left.outcome is None


def test_a_failure_of_the_examination_is_no_secret_of_its_thread():
    def fail(guided):
        raise ZeroDivisionError

    client = Client()
    client.put(Guides(fail), 1)
    assert client.wait().code is Code.INTERNAL
