"""A folder in OpenVINO's format is served as the GGUF file that it was made of."""

import shutil
from pathlib import Path

import openvino
import openvino_genai
import pytest

from rayserve_platform.core.messages import Chat, Guided, Sampling, Stopping, Turn
from rayserve_platform.formats.source import find, resolve
from rayserve_platform.runtimes.genai.engine import GenAIRuntime
from rayserve_platform.settings.app import Model
from rayserve_platform.settings.genai import GenAIApp, GenAIEngine
from tests.unit.runtimes.genai.conftest import SOURCE, Served

pytestmark = [pytest.mark.llm, pytest.mark.asyncio(loop_scope="session")]


def _make(folder: Path) -> None:
    """Do what `optimum-cli export openvino` does, by the libraries that do it there."""
    from openvino_tokenizers import convert_tokenizer
    from transformers import AutoTokenizer

    file = folder / "model.gguf"
    file.symlink_to(find(SOURCE))
    # It is written when a pipeline reads the file.
    openvino_genai.LLMPipeline(str(file), "CPU", enable_save_ov_model=True)
    file.unlink()
    original = resolve(SOURCE)
    made = convert_tokenizer(AutoTokenizer.from_pretrained(original), with_detokenizer=True)
    for model, name in zip(made, ("tokenizer", "detokenizer"), strict=True):
        openvino.save_model(model, folder / f"openvino_{name}.xml")
    for name in ("config.json", "generation_config.json"):
        shutil.copy(original / name, folder)


async def test_a_folder_answers_as_the_file_it_was_made_of(served, tmp_path):
    _make(tmp_path)
    engine = GenAIEngine(threads=2, max_batch_size=4, dynamic_quantization=False)
    runtime = GenAIRuntime(GenAIApp(model=Model(id="m", source=str(tmp_path)), engine=engine))
    await runtime.start()
    try:
        [card] = await runtime.describe()
        assert (card.max_model_len, card.chat) == (8192, True)
        question = Chat(turns=(Turn(role="user", content="What is the capital of France?"),))
        for request in (
            {"prompt": question},
            {"prompt": "Once upon a time there was a"},
            {"prompt": "Say", "guided": Guided(kind="choice", value=("nothing", "anything"))},
        ):
            how = request | {
                "sampling": Sampling(temperature=0),
                "stopping": Stopping(max_new_tokens=16),
            }
            ours, theirs = await Served(runtime).answer(**how), await served.answer(**how)
            assert (ours.text, ours.stop) == (theirs.text, theirs.stop)
    finally:
        await runtime.stop()
