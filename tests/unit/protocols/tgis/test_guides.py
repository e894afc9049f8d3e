"""Guides that are small to send and large to compile."""

import pytest

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.protocols.tgis.translate import _guided

BOMB = "(a{1000}){1000}"


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        ({"regex": BOMB}, "regex"),
        ({"jsonSchema": f'{{"items": {{"pattern": "{BOMB}"}}}}'}, "json_schema"),
        ({"grammar": "a" * 70_000}, "grammar"),
        ({"choice": {"choices": ["a" * 40_000, "b" * 40_000]}}, "choice"),
    ],
)
def test_it_is_refused_before_an_engine_sees_it(parameters, sent, param):
    with pytest.raises(PlatformError) as caught:
        _guided(parameters(decoding=sent).decoding)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.param == param
