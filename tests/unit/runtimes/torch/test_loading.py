import json
import pickle
import shutil

import pytest
import torch

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import Sampling, Stopping
from rayserve_platform.formats.pytorch import has_safetensors
from rayserve_platform.runtimes.torch.engine import TorchRuntime
from rayserve_platform.settings.app import Model
from rayserve_platform.settings.torch import TorchApp, TorchEngine

ASKED = {
    "prompt": "the house",
    "sampling": Sampling(temperature=0),
    "stopping": Stopping(max_new_tokens=9),
}


@pytest.fixture
def copied(directory, tmp_path):
    """Copy a model, to be changed."""
    return lambda kind: shutil.copytree(directory(kind), tmp_path / kind)


def as_bin(path):
    """Turn a model's safetensors into `pytorch_model.bin`."""
    from safetensors.torch import load_file

    weights = load_file(path / "model.safetensors")
    torch.save(weights, path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()


async def reason(path, **engine):
    """Why a model is not loaded."""
    model = Model(id="m", source=str(path))
    runtime = TorchRuntime(TorchApp(model=model, engine=TorchEngine(**engine)))
    with pytest.raises(PlatformError) as caught:
        await runtime.start()
    await runtime.stop()
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value.message


@pytest.mark.parametrize("kind", ["t5", "llama"])
async def test_a_bin_file_is_as_good_as_safetensors(kind, directory, copied, serve):
    path = copied(kind)
    as_bin(path)
    expected = await (await serve(directory(kind))).answer(**ASKED)
    assert (await (await serve(path)).answer(**ASKED)).text == expected.text


async def test_safetensors_are_preferred(copied, serve):
    path = copied("t5")
    (path / "pytorch_model.bin").write_bytes(b"not read")
    assert has_safetensors(path)
    assert (await (await serve(path)).answer(**ASKED)).stop


class Evil:
    """A pickle that runs code when it is read."""

    def __reduce__(self):
        return (print, ("never printed",))


async def test_a_bin_file_that_holds_more_than_weights_is_refused(copied, capsys):
    path = copied("t5")
    (path / "model.safetensors").unlink()
    (path / "pytorch_model.bin").write_bytes(pickle.dumps({"shared.weight": Evil()}))
    said = await reason(path)
    assert said == "pytorch_model.bin (read as weights only) can't be loaded into a t5 model"
    torch.save({"shared.weight": Evil()}, path / "pytorch_model.bin")
    assert await reason(path) == said
    assert "never printed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tf_model.h5", "TensorFlow"),
        ("flax_model.msgpack", "Flax"),
        ("model.onnx", "ONNX"),
        ("consolidated.00.pth", "a bare PyTorch file"),
        ("adapter_model.safetensors", "an adapter, to be merged into its model"),
    ],
)
async def test_other_weights_are_refused_by_what_they_are(name, kind, copied):
    path = copied("t5")
    (path / "model.safetensors").rename(path / name)
    assert await reason(path) == (
        "the model has no weights: no model.safetensors and no pytorch_model.bin; "
        f"found instead: {kind}"
    )


async def test_weights_that_are_cut_off_or_of_another_model_are_refused(copied, directory):
    path = copied("t5")
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    assert "the safetensors can't be loaded" in await reason(path)
    shutil.copy(directory("llama") / "model.safetensors", weights)
    said = await reason(path)
    assert "the weights lack" in said or "can't be loaded" in said


async def test_a_shard_that_is_missing_is_named(copied):
    path = copied("t5")
    (path / "model.safetensors").unlink()
    table = {"weight_map": {"shared.weight": "model-00001-of-00001.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(table))
    assert "model-00001-of-00001.safetensors" in await reason(path)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "bert"}, "model type 'bert' does not generate text"),
        ({"model_type": "vit"}, "model type 'vit' does not generate text"),
        ({"model_type": "nobodys"}, "of a model type that transformers doesn't know"),
    ],
)
async def test_a_model_of_another_kind_is_refused(config, words, copied):
    path = copied("llama")
    if config["model_type"] == "bert":
        # BERT can be made to write; what it was made for can't.
        config = config | {"model_type": "clip"}
        words = words.replace("bert", "clip")
    (path / "config.json").write_text(json.dumps(config))
    assert words in await reason(path)


async def test_code_that_comes_with_a_model_is_not_run(copied):
    path = copied("llama")
    config = json.loads((path / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
    (path / "config.json").write_text(json.dumps(config))
    (path / "own.py").write_text("raise SystemExit('ran')")
    assert "code that comes with a model is not run" in await reason(path)


async def test_a_model_without_a_tokenizer_is_refused(copied):
    path = copied("llama")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path / name).unlink()
    assert await reason(path) == "the tokenizer is missing or broken"


async def test_a_length_that_the_model_was_not_made_for_is_refused(directory):
    assert await reason(directory("llama"), max_model_len=129) == (
        "engine.max_model_len: 129 is more than the 128 positions of the model"
    )


async def test_a_tokenizers_length_is_the_models_where_it_has_no_other(copied, serve):
    path = copied("t5")
    config = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": 512}))
    (card,) = await (await serve(path)).runtime.describe()
    assert card.max_model_len == 512
    (card,) = await (await serve(path, max_model_len=4096)).runtime.describe()
    assert card.max_model_len == 4096


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
async def test_a_model_computes_in_the_type_that_is_asked_for(dtype, directory, serve):
    served = await serve(directory("llama"), dtype=dtype)
    assert str(served.runtime._service._loaded.model.dtype) == f"torch.{dtype}"
    assert served.company == "answers of any length"
    assert (await served.answer(**ASKED)).stop


async def test_a_caikit_directory_is_served(directory, serve, tmp_path):
    shutil.copytree(directory("t5"), tmp_path / "flan" / "artifacts")
    (tmp_path / "flan" / "config.yml").write_text(
        "module_id: f9181353-4ccf-4572-bd1e-f12bcda26792\n"
        "name: Text Generation\nversion: 0.1.0\nartifact_path: artifacts\n"
        "eos_token: </s>\ntorch_dtype: float32\n"
    )
    expected = await (await serve(directory("t5"))).answer(**ASKED)
    assert (await (await serve(tmp_path / "flan")).answer(**ASKED)).text == expected.text


async def test_a_chat_template_may_come_with_the_settings(directory, tmp_path):
    from rayserve_platform.core.messages import Chat, Generate, Turn

    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    (tmp_path / "chat.jinja").write_text(template)
    chat = Chat(turns=(Turn(role="user", content="the last"),))
    for setting in (template, str(tmp_path / "chat.jinja")):
        app = TorchApp(model=Model(id="m", source=str(directory("llama"))), chat_template=setting)
        runtime = TorchRuntime(app)
        await runtime.start()
        (card,) = await runtime.describe()
        assert card.chat
        request = Generate(model="m", prompt=chat, stopping=Stopping(max_new_tokens=1))
        chunks = [chunk async for batch in runtime.generate(request) for chunk in batch]
        count = len(runtime._service.texts.encode("the last", special=True))
        assert chunks[0].prompt is not None
        assert chunks[0].prompt.token_count == count
        broken = Chat(turns=chat.turns, template="{{ raise_exception('no such role') }}")
        with pytest.raises(PlatformError, match="no such role"):
            await anext(runtime.generate(Generate(model="m", prompt=broken)))
        await runtime.stop()
