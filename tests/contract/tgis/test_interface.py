"""The interface is the originals', field by field (`tests/data/tgis/interface.md`)."""

import re
from typing import Any

import pytest

from rayserve_platform.pb import generation_pb2 as pb
from tests.contract.tgis.recordings import DATA

FIELD = re.compile(
    r"^\| (\d+) \| (\w+) \| (optional |repeated )?([\w.]+) \| (\w*) \| (\w+) \| ", re.MULTILINE
)
TABLE = (DATA / "interface.md").read_text()


def described() -> dict[str, list[Any]]:
    """Fields by message, as the table has them."""
    sections = re.split(r"^### ", TABLE, flags=re.MULTILINE)[1:]
    named = ((section.split()[0], FIELD.findall(section)) for section in sections)
    return {name: fields for name, fields in named if fields}


def message(name: str) -> Any:
    found: Any = pb.DESCRIPTOR
    for part in name.split("."):
        group = getattr(found, "nested_types_by_name", None) or found.message_types_by_name
        found = group[part]
    return found


SCALARS = {9: "string", 13: "uint32", 4: "uint64", 2: "float", 8: "bool"}


def _row(field: Any) -> tuple[str, ...]:
    kind = field.message_type or field.enum_type
    name = kind.full_name.removeprefix("fmaas.") if kind else SCALARS[field.type]
    oneof = field.containing_oneof
    own = oneof.name if oneof is not None and not oneof.name.startswith("_") else ""
    optional = oneof is not None and not own
    label = "repeated " if field.is_repeated else "optional " if optional else ""
    return (str(field.number), field.name, label, name, own, field.json_name)


@pytest.mark.parametrize("name", described())
def test_every_message_has_the_fields_of_the_table_and_no_other(name):
    assert {_row(field) for field in message(name).fields} == set(described()[name])


def test_the_table_describes_every_message():
    def names(kinds: Any, prefix: str = "") -> set[str]:
        found = set()
        for kind in kinds:
            found |= {prefix + kind.name, *names(kind.nested_types, f"{prefix}{kind.name}.")}
        return found

    assert names(pb.DESCRIPTOR.message_types_by_name.values()) == set(described())
    assert pb.DESCRIPTOR.package == "fmaas"


def test_enums_have_the_values_of_the_table():
    found = re.findall(r"^\* `([\w.]+)`[^:]*: ((?:\w+=\d+(?:, )?)+)", TABLE, re.MULTILINE)
    assert len(found) == 4
    for name, values in found:
        outer, _, last = name.rpartition(".")
        group = message(outer).enum_types_by_name if outer else pb.DESCRIPTOR.enum_types_by_name
        own = [f"{value.name}={value.number}" for value in group[last].values]
        assert own == values.split(", ")


def test_the_service_has_the_methods_of_the_table():
    row = r"^\| (\w+) \| (\w+) \| (?:stream )?(\w+) \| (unary|server) \|$"
    rows = re.findall(row, TABLE, re.MULTILINE)
    assert len(rows) == 4
    service = pb.DESCRIPTOR.services_by_name["GenerationService"]
    own = {
        (m.name, m.input_type.name, m.output_type.name, "server" if m.server_streaming else "unary")
        for m in service.methods
    }
    assert own == set(rows)
