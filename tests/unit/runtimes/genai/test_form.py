"""Forms that are refused before anything reads them, and forms that are not."""

import json

import pytest

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import Guided
from rayserve_platform.runtimes.genai.form import DEEPEST, LARGEST, check_form

DEEP = "(" * (DEEPEST + 1) + "a" + ")" * (DEEPEST + 1)
ESCAPED_NUL = r"a\u0000b"


def _schema(**keywords):
    return Guided(kind="json_schema", value=json.dumps(keywords))


@pytest.mark.parametrize(
    ("guided", "why"),
    [
        (Guided(kind="regex", value=DEEP), "levels"),
        (Guided(kind="regex", value="(" * 100_000), "levels"),
        (Guided(kind="regex", value="{" * 100_000), "levels"),
        (Guided(kind="grammar", value="root ::= " + DEEP.replace("a", '"a"')), "levels"),
        (_schema(items={"pattern": DEEP}), "levels"),
        (_schema(patternProperties={DEEP: {}}), "levels"),
        (Guided(kind="regex", value="(((a{100}){100}){100}){100}"), "times"),
        (Guided(kind="regex", value="(a{2000} b){0,2000}"), "times"),
        (Guided(kind="regex", value="(a{2}){%s}" % ("9" * 5000)), "times"),
        (Guided(kind="grammar", value='root ::= (("a"{2000}) "b"){2000,}'), "times"),
        (_schema(pattern="((a{2000})){2000}"), "times"),
        (Guided(kind="choice", value=("a", "a\0b")), r"U\+0000"),
        (Guided(kind="choice", value=("\ud800",)), "surrogate"),
        (Guided(kind="regex", value="a\0b"), r"U\+0000"),
        (Guided(kind="regex", value=r"a\x00b"), r"U\+0000"),
        (Guided(kind="regex", value=ESCAPED_NUL), r"U\+0000"),
        (Guided(kind="regex", value=r"\uD800"), "surrogate"),
        (Guided(kind="grammar", value='root ::= "a\0b"'), r"U\+0000"),
        (Guided(kind="grammar", value=f'root ::= "{ESCAPED_NUL}"'), r"U\+0000"),
        (_schema(enum=["a\0b"]), r"U\+0000"),
        (_schema(const="\ud800"), "surrogate"),
    ],
)
def test_what_would_harm_the_library_is_refused(guided, why):
    with pytest.raises(PlatformError, match=why) as caught:
        check_form(guided)
    assert (caught.value.code, caught.value.param) == (Code.INVALID_ARGUMENT, "guided")


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": ["Mädchen"]},
        {"const": "Größe"},
        {"properties": {"façade": {"type": "null"}}},
    ],
)
def test_what_the_library_would_write_wrongly_is_refused_by_its_name(schema):
    with pytest.raises(PlatformError, match=r"Mädchen|Größe|façade") as caught:
        check_form(_schema(**schema))
    assert caught.value.code is Code.UNIMPLEMENTED


@pytest.mark.parametrize(
    "guided",
    [
        Guided(kind="regex", value=r"\(" * 100 + "[([{]" * 100 + "(a)" * 100),
        Guided(kind="regex", value="[" * LARGEST),
        Guided(kind="regex", value="[\\" * (LARGEST // 2)),
        Guided(kind="regex", value="{" + " " * (LARGEST - 1)),
        Guided(kind="grammar", value='["' * (LARGEST // 2)),
        Guided(kind="regex", value="a{1,2000000}"),
        Guided(kind="regex", value=r"[^\x00-\x1f]{3}(b{3} ){3}"),
        Guided(kind="regex", value=r"a\\0"),
        Guided(
            kind="grammar", value='root ::= "' + "((((" * 100 + r'\"" | [^"\x00-\x1f([{]* # (((('
        ),
        _schema(description="Mädchen", enum=["prénom", "été"], pattern="Mädchen"),
        _schema(properties={"pattern": {"type": "string"}, "enum": {"type": "null"}}),
    ],
)
def test_what_only_looks_like_it_is_not(guided):
    check_form(guided)
