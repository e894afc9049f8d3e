"""Adapters in a directory: found by their paths below it, and nothing outside of it ever is.

The refusals are those that vllm-tgis-adapter gave (`tests/data/tgis/lora.json`).
"""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.formats.adapter import find_adapter, no_store

DATA = Path(__file__).parents[2] / "data/tgis/lora.json"


def make(directory: Path, content: str = '{"peft_type": "LORA"}') -> Path:
    directory.mkdir(parents=True)
    (directory / "adapter_config.json").write_text(content)
    return directory


@pytest.fixture
def store(tmp_path: Path) -> Path:
    root = tmp_path / "adapters"
    make(root / "mylora")
    make(root / "nested/mylora2")
    make(root / "prompt", '{"peft_type": "PROMPT_TUNING"}')
    make(root / "broken", '{"peft_type": ')
    make(root / "list", "[]")
    (root / "noconfig").mkdir()
    make(tmp_path / "outside")
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "alias").symlink_to(root / "mylora")
    return root


def refusal(store: Path, adapter_id: str) -> str:
    with pytest.raises(PlatformError) as caught:
        find_adapter(store, adapter_id)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert str(store.parent) not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("adapter_id", ["mylora", "nested/mylora2", "mylora/", "alias"])
def test_an_adapter_is_found_by_its_path(store, adapter_id):
    assert find_adapter(store, adapter_id) == (store / adapter_id).resolve()


def recorded() -> dict[str, str]:
    """What was refused, by the adapter's name."""
    cases = json.loads(DATA.read_text())["cases"]
    return {
        case["req"]["adapterId"]: case["result"]["details"]
        for case in cases
        if case["result"]["code"] == "INVALID_ARGUMENT"
    }


@pytest.mark.parametrize(("adapter_id", "details"), recorded().items())
def test_what_was_refused_is_refused_in_the_same_words(store, adapter_id, details):
    assert refusal(store, adapter_id) == details


def test_no_directory_has_the_adapters_own_words():
    assert no_store().message == "adapter_id supplied but no adapter store was configured"


def test_only_lora_is_taken(store):
    assert refusal(store, "prompt") == "adapter type PROMPT_TUNING is not currently supported"
    assert "NONE" in refusal(store, "list").upper()
    assert refusal(store, "broken").endswith("invalid adapter: it cannot be read")


@pytest.mark.parametrize("adapter_id", ["link", "", "/", "nested/", "mylora\n", "m\0", "ümlaut"])
def test_what_leads_out_or_names_nothing_is_refused(store, adapter_id):
    refusal(store, adapter_id)


def test_a_name_too_long_for_a_file_system_is_no_adapter_and_not_repeated_whole(store):
    assert len(refusal(store, "a" * 5000)) < 300


@given(adapter_id=st.text(max_size=30) | st.text("./-_a\\~", max_size=12))
def test_no_id_finds_anything_else(tmp_path_factory, adapter_id):
    root = tmp_path_factory.getbasetemp() / "hostile/adapters"
    if not root.exists():
        make(root / "a")
    found = None
    with contextlib.suppress(PlatformError):
        found = find_adapter(root, adapter_id)
    assert found in (None, (root / "a").resolve())
