import subprocess
import sys

import pytest

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.runtimes import ENGINES, load
from rayserve_platform.runtimes.fake import FakeRuntime
from rayserve_platform.settings.app import Model
from rayserve_platform.settings.fake import FakeApp

SETTINGS = FakeApp(model=Model(id="m"))


@pytest.mark.parametrize("name", ["fake", "rayserve_platform.runtimes.fake:FakeRuntime"])
async def test_an_engine_is_made_by_its_short_name_or_its_own(name):
    engine = load(name, SETTINGS, None)
    assert isinstance(engine, FakeRuntime)
    await engine.start()
    (card,) = await engine.describe()
    assert card.id == "m"
    await engine.stop()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nope", f"known: {', '.join(ENGINES)}, or module:Class"),
        ("no.such.module:Engine", "cannot be loaded"),
        ("rayserve_platform.runtimes.fake:NoSuchEngine", "cannot be loaded"),
    ],
)
def test_an_engine_that_cannot_be_made_is_named(name, words):
    with pytest.raises(PlatformError) as caught:
        load(name, SETTINGS, None)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert f"runtime '{name}'" in caught.value.message
    assert words in caught.value.message


def test_the_table_of_engines_and_the_protocols_load_nothing_heavy():
    code = (
        "import sys\n"
        "import rayserve_platform.runtimes, rayserve_platform.runtimes.vllm.engine\n"
        "import rayserve_platform.protocols.openai.http\n"
        "print(sorted({'vllm', 'torch', 'transformers', 'ray'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert ENGINES["vllm"].startswith("rayserve_platform.runtimes.vllm.engine:")
