"""Guides are examined apart from everything else, and not for ever."""

import threading

import pytest

from rayserve_platform.core.errors import Code, PlatformError
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


def test_one_that_takes_too_long_is_refused_and_those_behind_it_may_come_again(gate):
    guides = Guides(lambda guided: gate.wait(), limit_s=0.2)
    slow, behind, later, last = Client(), Client(), Client(), Client()
    slow.put(guides, 1)
    behind.put(guides, 2)
    assert (slow.wait().code, slow.wait().param) == (Code.INVALID_ARGUMENT, "guided")
    assert "longer than 0.2 s" in slow.wait().message
    later.put(guides, 3)
    for client in (behind, later):
        assert client.wait().code is Code.RESOURCE_EXHAUSTED
        assert client.wait().retry_after_s
    gate.set()
    while last.outcome is None or isinstance(last.outcome, PlatformError):
        last.put(guides, 4)
        last.wait()
    assert last.outcome == "ready"


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
