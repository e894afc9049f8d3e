"""Documents with what texts and JSON can't say: no caller's token may break a decision."""

from typing import Any

import pytest

from rayserve_platform.core.errors import Code
from rayserve_platform.edge.auth.denial import Denial
from rayserve_platform.edge.auth.expression import EvaluationFault
from rayserve_platform.edge.auth.selector import written

ALICE = {"plain": {"expression": "{'username': 'alice', 'groups': ['ml', 'staff']}"}}


def only(rule: dict[str, Any]) -> dict[str, Any]:
    return {"authorization": {"only": {"patternMatching": {"patterns": [rule]}}}}


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ({1: "a"}, '{"1":"a"}'),
        ({True: [{2: "b"}]}, '{"true":[{"2":"b"}]}'),
    ],
)
def test_keys_that_are_no_texts_are_written_as_protobufs_json_writes_them(
    found: Any, text: str
) -> None:
    assert written(found) == text


@pytest.mark.parametrize(
    "found", ["\ud800", {"a": "\ud800"}, [2**70], {(1, 2): 3}, {"a": {"\ud800": 1}}], ids=ascii
)
def test_what_json_can_not_say_is_a_fault(found: Any) -> None:
    with pytest.raises(EvaluationFault):
        written(found)


@pytest.mark.parametrize("value", ["\ud800", {"x": "\ud800"}, 2**70], ids=ascii)
@pytest.mark.parametrize(
    "rule",
    [
        {"selector": "auth.identity.odd", "operator": "excl", "value": "guest"},
        {"selector": "auth.identity.odd", "operator": "neq", "value": "guest"},
        {"predicate": "auth.identity.odd != 'guest'"},
    ],
    ids=str,
)
async def test_an_identity_that_can_not_be_evaluated_is_refused(
    guarded: Any, rule: Any, value: Any
) -> None:
    odd = {**ALICE, "overrides": {"odd": {"value": value}}}
    ask = await guarded({**only(rule), "authentication": {"alice": odd}})
    with pytest.raises(Denial) as caught:
        await ask()
    assert caught.value.code is Code.PERMISSION_DENIED


async def test_a_map_with_numbers_as_keys_can_be_compared_and_told(guarded: Any) -> None:
    numbered = {"alice": {**ALICE, "overrides": {"by": {"expression": "{1: 'a'}"}}}}
    headers = {
        "x-by": {"plain": {"selector": "auth.identity.by"}},
        "x-half": {"plain": {"value": "\ud800"}},
    }
    ask = await guarded(
        {
            **only({"selector": "auth.identity.by", "operator": "eq", "value": '{"1":"a"}'}),
            "authentication": numbered,
            "response": {"success": {"headers": headers}},
        }
    )
    assert (await ask()).headers == (("x-by", '{"1":"a"}'),)
