"""The generated code is that of protos/, and Caikit's is the interface that the original serves."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

ROOT = Path(__file__).parents[3]
PB = ROOT / "rayserve_platform/pb"
RECORDED = ROOT / "tests/data/caikit/caikit.protoset"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make protos` would write now, and a set of all descriptors beside it."""
    folder = tmp_path_factory.mktemp("protos")
    protos = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "protos").glob("*.proto"))
    outputs = ("python_out", "pyi_out", "grpc_python_out")
    command = [
        *(sys.executable, "-m", "grpc_tools.protoc", "-Irayserve_platform/pb=protos"),
        *(f"--{name}={folder}" for name in outputs),
        f"--descriptor_set_out={folder / 'all.protoset'}",
        *protos,
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def test_the_committed_code_is_what_the_protos_give(generated):
    fresh = {path.name: path.read_text() for path in (generated / "rayserve_platform/pb").iterdir()}
    committed = {path.name: path.read_text() for path in PB.glob("*_pb2*")}
    assert fresh.keys() == committed.keys()
    assert [name for name in fresh if fresh[name] != committed[name]] == []


def _described(file: Path) -> dict[str, Any]:
    """Return what each message, enum and method of a descriptor set looks like on the wire."""
    found: dict[str, Any] = {}

    def message(kind: Any, prefix: str) -> None:
        name = f"{prefix}.{kind.name}"
        oneofs = [oneof.name for oneof in kind.oneof_decl]
        found[name] = {
            (
                *(field.name, field.number, field.type, field.label, field.type_name),
                field.proto3_optional,
                oneofs[field.oneof_index] if field.HasField("oneof_index") else "",
            )
            for field in kind.field
        }
        for nested in kind.nested_type:
            message(nested, name)

    for proto in descriptor_pb2.FileDescriptorSet.FromString(file.read_bytes()).file:
        for kind in proto.message_type:
            message(kind, proto.package)
        for enum in proto.enum_type:
            found[f"{proto.package}.{enum.name}"] = {(v.name, v.number) for v in enum.value}
        for service in proto.service:
            for method in service.method:
                found[f"{proto.package}.{service.name}/{method.name}"] = (
                    *(method.input_type, method.output_type),
                    *(method.client_streaming, method.server_streaming),
                )
    return found


def test_what_we_have_of_caikits_interface_is_as_the_original_serves_it(generated):
    original = _described(RECORDED)
    ours = {
        name: kind
        for name, kind in _described(generated / "all.protoset").items()
        if name.startswith("caikit")
    }
    assert len(ours) > 40
    assert {name: kind for name, kind in ours.items() if original.get(name) != kind} == {}
