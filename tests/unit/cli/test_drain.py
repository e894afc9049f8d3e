"""What `rayserve run` does before it stops Serve."""

from types import SimpleNamespace

import pytest
from ray import serve

from rayserve_platform.cli.drain import drain


class FakeServe:
    """Applications that finish after a number of looks at them, or never."""

    def __init__(self, **looks: float) -> None:
        self.looks = looks
        self.deleted: set[str] = set()

    def status(self):
        for name in self.deleted & set(self.looks):
            self.looks[name] -= 1
            if self.looks[name] <= 0:
                del self.looks[name]
        return SimpleNamespace(applications=dict(self.looks))

    def delete(self, name, *, _blocking):
        assert not _blocking
        self.deleted.add(name)


@pytest.fixture
def serving(monkeypatch):
    """Puts a fake in Serve's place."""

    def install(**looks: float) -> FakeServe:
        fake = FakeServe(**looks)
        monkeypatch.setattr(serve, "status", fake.status)
        monkeypatch.setattr(serve, "delete", fake.delete)
        monkeypatch.setattr("rayserve_platform.cli.drain.POLL_S", 0)
        return fake

    return install


def test_applications_that_clients_reach_are_waited_for(serving):
    fake = serving(one=2, gateway=5, model=9)
    drain({"model"}, timeout_s=60)
    assert fake.deleted == {"one", "gateway"}
    assert set(fake.looks) == {"model"}


def test_what_does_not_finish_in_time_is_left(serving):
    fake = serving(one=2, stuck=float("inf"))
    drain((), timeout_s=0.05)
    assert set(fake.looks) == {"stuck"}


def test_nothing_is_waited_for_where_nothing_runs(serving):
    serving()
    drain((), timeout_s=60)
