"""What a Caikit directory may say, and how what it may not say is refused."""

from pathlib import Path

import pytest

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.formats.caikit import MODULES, is_caikit, read

EMBEDDING = "eeb12558-b4fa-4f34-a9fd-3f5890e9cd3f"
CROSS_ENCODER = "1673f8f2-726f-48cb-93a1-540c81f0f3c9"
TEXT_GENERATION = "f9181353-4ccf-4572-bd1e-f12bcda26792"


def refusal(folder: Path) -> str:
    with pytest.raises(PlatformError) as caught:
        read(folder)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert str(folder) not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(
    ("module_id", "key", "kind"),
    [
        (EMBEDDING, "artifacts_path", "embedding"),
        (CROSS_ENCODER, "artifacts_path", "cross-encoder"),
        (TEXT_GENERATION, "artifact_path", "text-generation"),
    ],
)
def test_each_module_points_to_its_artifacts_by_its_own_key(
    tmp_path: Path, module_id: str, key: str, kind: str
) -> None:
    (tmp_path / "files/deep").mkdir(parents=True)
    # As caikit 0.27.7 writes it.
    (tmp_path / "config.yml").write_text(
        f"{key}: files/deep\ncaikit_nlp_version: 0.5.13\ncreated: '2026-11-27 23:31:15.972773'\n"
        f"module_id: {module_id}\nname: X\nversion: 0.0.1\n"
    )
    assert is_caikit(tmp_path)
    found = read(tmp_path)
    assert (found.module.kind, found.artifacts) == (kind, tmp_path / "files/deep")
    other = {"artifacts_path": "artifact_path", "artifact_path": "artifacts_path"}[key]
    (tmp_path / "config.yml").write_text(f"module_id: {module_id}\n{other}: files/deep\n")
    assert f"'{key}' must name the directory" in refusal(tmp_path)


@pytest.mark.parametrize(
    "path", ["..", "../other", "a/../../b", "/etc", "..\\x", '"a\\0b"', "a/.."]
)
def test_artifacts_outside_the_directory_are_refused(tmp_path: Path, path: str) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.yml").write_text(f"module_id: {EMBEDDING}\nartifacts_path: {path}\n")
    assert "must stay inside the model's directory" in refusal(model)


def test_linked_artifacts_are_followed(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model/artifacts").symlink_to("../store")
    (tmp_path / "model/config.yml").write_text(
        f"module_id: {EMBEDDING}\nartifacts_path: artifacts\n"
    )
    assert read(tmp_path / "model").artifacts.samefile(tmp_path / "store")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no settings"),
        ("- a list\n", "holds no settings"),
        ("a: [", "is not YAML"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
        ("name: X\n", "'module_id' is required; served are embedding, cross-encoder"),
        ("module_id: 00000000-0000-0000-0000-000000000000\n", "is an unknown module"),
        ("module_id: d21107ca-d579-4321-aedd-3099a526e0dd\n", "is sequence classification"),
        ("module_id: 6655831b-960a-4dc5-8df4-867026e2cd41\n", "is prompt tuning"),
        (f"module_id: {EMBEDDING}\nartifacts_path: nowhere\n", "there is no such directory"),
        (f"module_id: {EMBEDDING}\nartifacts_path: [x]\n", "must name the directory"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "config.yml").write_text(content)
    assert message in refusal(tmp_path)


def test_a_config_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_bytes(b"\xff\xfe\x00")
    assert "is not YAML" in refusal(tmp_path)
    assert not is_caikit(tmp_path / "nowhere")


def test_kinds_are_told_apart() -> None:
    assert len({module.kind for module in MODULES.values()}) == len(MODULES) == 3
