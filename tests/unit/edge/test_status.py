import pytest

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import StopReason
from rayserve_platform.edge.exchange import STATUS, TooLarge, status_of
from rayserve_platform.protocols.openai.http import OpenAIHttp
from rayserve_platform.protocols.openai.render import ERROR_TYPES, FINISH


def test_every_code_has_one_status_and_every_status_a_code():
    assert set(STATUS) == set(Code)
    assert len(set(STATUS.values())) == len(Code)


@pytest.mark.parametrize("code", Code)
def test_every_status_is_an_http_error(code):
    assert 400 <= status_of(PlatformError(code, "")) <= 599


def test_the_callers_mistakes_are_4xx_and_ours_5xx():
    ours = {Code.DEADLINE_EXCEEDED, Code.UNIMPLEMENTED, Code.UNAVAILABLE, Code.INTERNAL}
    assert {code for code, status in STATUS.items() if status >= 500} == ours


def test_a_body_over_the_limit_is_413_and_says_the_limit():
    error = TooLarge(3 * 2**19)
    assert status_of(error) == 413
    assert error.message == "The request body is larger than 1.5 MiB."


def test_the_openai_tables_are_exhaustive():
    assert set(ERROR_TYPES) == set(Code)
    assert set(FINISH) == set(StopReason)


@pytest.mark.parametrize("code", Code)
def test_openai_answers_every_code_as_the_edge_does_but_for_what_a_runtime_cannot_do(code):
    protocol = OpenAIHttp(Catalog([]))
    status, _, body = protocol.error(PlatformError(code, "why"), "id-1")
    assert status == (400 if code is Code.UNIMPLEMENTED else STATUS[code])
    assert b"why" in body
    assert (b"id-1" in body) == (code is Code.INTERNAL)
