"""A body whose key stands twice names two models."""

import pytest

from rayserve_platform.core.errors import PlatformError
from rayserve_platform.edge.json import check_once

TWICE = [
    b'{"model": "a", "model": "b"}',
    b'{"model": "a", "x": {"model": "c"}, "model": "a"}',
    rb'{"model": "a", "\u006dodel": "b"}',
    rb'{"\u006D\u006fdel": "a", "mo\u0064el": "b"}',
    b'{"model": "a", "x": "' + b"a" * 100_000 + b'", "model": "b"}',
]
ONCE = [
    b"{}",
    b'{"model": "a"}',
    rb'{"\u006dodel": "a"}',
    b'{"model": "model"}',
    b'{"model": "a", "x": [{"model": "b"}, {"model": "c"}]}',
    rb'{"model": "a", "x": "\"model\": \"model\""}',
    rb'{"model": "a", "x": "caf\u00e9"}',
    b'{"model": "a", "Model": "b"}',
]


@pytest.mark.parametrize("body", TWICE)
def test_a_key_that_stands_twice_is_refused(body: bytes) -> None:
    with pytest.raises(PlatformError, match="several 'model'; send one") as caught:
        check_once(body, ("model",))
    assert caught.value.param == "model"


@pytest.mark.parametrize("body", ONCE)
def test_a_key_that_stands_once_is_fine_wherever_else_it_stands(body: bytes) -> None:
    check_once(body, ("model",))
    check_once(body.decode(), ("model",))
