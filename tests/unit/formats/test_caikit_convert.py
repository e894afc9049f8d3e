"""Making Caikit directories. Caikit 0.27.7 itself loads what these write (see the commit)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.formats.caikit import read
from rayserve_platform.formats.caikit_convert import convert, detect
from rayserve_platform.formats.progress import unheard
from rayserve_platform.formats.sentence_transformers import read_bi_encoder

BERT = {"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 8}
CROSS = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "L"}}
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16"}

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a model directory of JSON files by name, with weights."""

    def write(config: Any, **files: Any) -> Path:
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        for name, content in {"config": config, **files}.items():
            (folder / f"{name}.json").write_text(json.dumps(content))
        (folder / "model.safetensors").write_bytes(b"weights")
        return folder

    return write


def made(model: Path, out: Path, **options: Any) -> str:
    given = {"kind": None, "allow_pickle": False, "report": unheard} | options
    return convert(model, out, **given)


def refusal(model: Path, out: Path, **options: Any) -> str:
    with pytest.raises(PlatformError) as caught:
        made(model, out, **options)
    assert caught.value.code in {Code.INVALID_ARGUMENT, Code.UNAVAILABLE}
    return caught.value.message


def test_a_plain_encoder_becomes_an_embedding_model_with_mean_pooling(
    make: Make, tmp_path: Path
) -> None:
    out = tmp_path / "deep/out"
    model = make(BERT | {"max_position_embeddings": 64})
    assert made(model, out) == "embedding"
    config = yaml.safe_load((out / "config.yml").read_text())
    assert config["module_id"] == "eeb12558-b4fa-4f34-a9fd-3f5890e9cd3f"
    assert config["artifacts_path"] == "artifacts"
    assert (config["name"], config["version"]) == ("EmbeddingModule", "0.0.1")
    found = read(out)
    encoder = read_bi_encoder(found.artifacts)
    assert (encoder.pooling, encoder.max_tokens) == (("mean",), 64)
    modules = json.loads((found.artifacts / "modules.json").read_text())
    assert [module["path"] for module in modules] == ["", "1_Pooling"]
    assert (found.artifacts / "model.safetensors").read_bytes() == b"weights"
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (BERT, "embedding"),
        ({"architectures": ["XLMRobertaForMaskedLM"]}, "embedding"),
        (CROSS, "cross-encoder"),
        (LLAMA, "text-generation"),
        ({"architectures": ["GPT2LMHeadModel"]}, "text-generation"),
        ({"architectures": ["T5ForConditionalGeneration"]}, "text-generation"),
    ],
)
def test_the_kind_is_read_off_the_config(make: Make, config: Any, kind: str) -> None:
    assert detect(make(config)) == kind


def test_modules_json_means_embedding_whatever_the_transformer(make: Make) -> None:
    assert detect(make(LLAMA, modules=[])) == "embedding"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "name one of embedding, cross-encoder, text-generation"),
        (CROSS | {"id2label": {"0": "a", "1": "b"}}, "a classifier with 2 labels"),
        ({"architectures": ["ViTForImageClassification"]}, "tell no kind of module"),
    ],
)
def test_models_of_no_kind_are_refused(
    make: Make, tmp_path: Path, config: Any, message: str
) -> None:
    assert message in refusal(make(config), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_kind_can_be_said(make: Make, tmp_path: Path) -> None:
    model = make({"model_type": "bert", "hidden_size": 8})
    assert made(model, tmp_path / "out", kind="embedding") == "embedding"


def test_a_language_model_keeps_its_names_for_older_libraries(make: Make, tmp_path: Path) -> None:
    model = make(
        LLAMA | {"rope_parameters": {"rope_theta": 5000.0, "rope_type": "linear", "factor": 2.0}},
        tokenizer_config={"tokenizer_class": "TokenizersBackend", "eos_token": {"content": "</s>"}},
    )
    assert made(model, tmp_path / "out") == "text-generation"
    config = yaml.safe_load((tmp_path / "out/config.yml").read_text())
    assert config["artifact_path"] == "artifacts"
    assert "artifacts_path" not in config
    assert (config["eos_token"], config["torch_dtype"]) == ("</s>", "torch.bfloat16")
    artifacts = tmp_path / "out/artifacts"
    written = json.loads((artifacts / "config.json").read_text())
    assert (written["rope_theta"], written["torch_dtype"]) == (5000.0, "bfloat16")
    assert written["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}
    tokenizer = json.loads((artifacts / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not (artifacts / "modules.json").exists()


def test_only_what_caikit_needs_is_copied(make: Make, tmp_path: Path) -> None:
    model = make(BERT)
    for name in ("onnx/model.onnx", "openvino/m.bin", ".git/HEAD", "2_X/data.txt"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text("x")
    for name in (
        "pytorch_model.bin",
        "tf_model.h5",
        "rust_model.ot",
        ".gitattributes",
        "vocab.txt",
    ):
        (model / name).write_text("x")
    made(model, tmp_path / "out")
    copied = {
        p.relative_to(tmp_path / "out/artifacts").as_posix()
        for p in (tmp_path / "out/artifacts").rglob("*")
        if p.is_file()
    }
    assert copied == {
        "config.json",
        "model.safetensors",
        "vocab.txt",
        "2_X/data.txt",
        "modules.json",
        "sentence_bert_config.json",
        "1_Pooling/config.json",
    }


def test_linked_files_are_copied_as_files(make: Make, tmp_path: Path) -> None:
    model = make(BERT)
    (model / "model.safetensors").rename(tmp_path / "blob")
    (model / "model.safetensors").symlink_to("../blob")
    made(model, tmp_path / "out")
    copied = tmp_path / "out/artifacts/model.safetensors"
    assert copied.read_bytes() == b"weights"
    assert not copied.is_symlink()


def test_what_exists_is_never_overwritten(make: Make, tmp_path: Path) -> None:
    model = make(BERT)
    (tmp_path / "out").mkdir()
    assert "exists already" in refusal(model, tmp_path / "out")
    (tmp_path / "link").symlink_to("nowhere")
    assert "exists already" in refusal(model, tmp_path / "link")
    made(model, tmp_path / "new")
    assert "in Caikit's format already" in refusal(tmp_path / "new", tmp_path / "newer")


def test_an_interrupted_conversion_leaves_nothing(make: Make, tmp_path: Path) -> None:
    def interrupt(phase: str, fraction: float) -> None:
        if fraction > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(make(BERT), tmp_path / "out", report=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_place_that_cannot_be_written_is_named(make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = refusal(make(BERT), tmp_path / "file/out")
    assert "can't be written" in message


def test_pickles_are_copied_only_when_asked_for(make: Make, tmp_path: Path) -> None:
    model = make(BERT)
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert "reading a pickle can run code" in refusal(model, tmp_path / "out")
    made(model, tmp_path / "out", allow_pickle=True)
    assert (tmp_path / "out/artifacts/pytorch_model.bin").is_file()


def test_progress_ends_at_the_whole(make: Make, tmp_path: Path) -> None:
    seen: list[tuple[str, float]] = []
    made(make(BERT), tmp_path / "out", report=lambda *step: seen.append(step))
    assert seen[0] == ("copying", 0.0)
    assert seen[-1] == ("copying", 1.0)
    assert [fraction for _, fraction in seen] == sorted(fraction for _, fraction in seen)
