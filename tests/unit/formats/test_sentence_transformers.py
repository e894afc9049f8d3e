"""Reading what stands around a transformer: modules, pooling, lengths, weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.formats.sentence_transformers import (
    Dense,
    Normalize,
    read_bi_encoder,
    read_cross_encoder,
)

BERT = {"model_type": "bert", "max_position_embeddings": 512, "type_vocab_size": 2}
CLASSIFIER = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "L"}}

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a model of JSON files by name, with weights."""

    def write(files: dict[str, Any], *, weights: str = "model.safetensors") -> Path:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        (tmp_path / weights).write_bytes(b"")
        return tmp_path

    return write


def chain(*modules: tuple[str, str]) -> list[dict[str, Any]]:
    return [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(modules)
    ]


def refusal(read: Callable[..., object], folder: Path) -> str:
    with pytest.raises(PlatformError) as caught:
        read(folder)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.param == "source"
    assert str(folder) not in caught.value.message
    return caught.value.message


def test_a_plain_directory_gets_mean_pooling(make: Make) -> None:
    found = read_bi_encoder(make({"config.json": BERT}))
    assert (found.pooling, found.head, found.max_tokens, found.cross) == (("mean",), (), 512, False)


def test_a_chain_is_read_in_order(make: Make) -> None:
    dense = {"in_features": 8, "out_features": 4, "activation_function": "torch.nn.Identity"}
    modules = chain(
        ("Transformer", ""),
        ("Pooling", "1_Pooling"),
        ("Dropout", "2"),
        ("Dense", "3_Dense"),
        ("Normalize", "4"),
    )
    folder = make(
        {
            "config.json": BERT,
            "modules.json": modules,
            "sentence_bert_config.json": {"max_seq_length": 128, "do_lower_case": True},
            "1_Pooling/config.json": {
                "pooling_mode_cls_token": True,
                "pooling_mode_mean_tokens": True,
            },
            "3_Dense/config.json": dense,
            "3_Dense/model.safetensors": "",
        }
    )
    found = read_bi_encoder(folder)
    assert found.pooling == ("cls", "mean")
    assert found.max_tokens == 128
    assert [type(step) for step in found.head] == [Dense, Normalize]
    assert isinstance(found.head[0], Dense)
    assert (found.head[0].out_features, found.head[0].activation) == (4, "Identity")
    assert folder / "3_Dense/model.safetensors" in found.files


def test_an_old_tree_keeps_its_transformer_in_a_folder(make: Make) -> None:
    folder = make(
        {
            "modules.json": chain(("Transformer", "0_T"), ("Pooling", "1_P")),
            "0_T/config.json": BERT,
            "0_T/sentence_roberta_config.json": {"max_seq_length": 99},
            "1_P/config.json": {"pooling_mode": "lasttoken"},
        },
        weights="0_T/model.safetensors",
    )
    found = read_bi_encoder(folder)
    assert (found.transformer, found.max_tokens) == (folder / "0_T", 99)
    assert found.pooling == ("lasttoken",)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ("{}", "lists no modules"),
        ([], "lists no modules"),
        ([{"path": ""}], "needs a 'type' and a 'path'"),
        ([{"type": "sentence_transformers.models.Transformer"}], "needs a 'type' and a 'path'"),
        ([{"type": "my_code.Model", "path": ""}], "code of the model's own"),
        (chain(("CLIPModel", "")), "begins with 'CLIPModel'"),
        (chain(("Transformer", "../x"), ("Pooling", "p")), "must stay inside"),
        (chain(("Transformer", ""), ("Pooling", "/etc")), "must stay inside"),
        (chain(("Transformer", ""), ("Normalize", "n")), "'Normalize' at this place"),
        (chain(("Transformer", ""), ("WordWeights", "w")), "'WordWeights' at this place"),
        (chain(("Transformer", ""), ("Pooling", "p"), ("Pooling", "p")), "'Pooling' at this place"),
        (chain(("Transformer", ""), ("Dropout", "d")), "no Pooling module"),
    ],
)
def test_chains_that_are_not_supported_are_named(make: Make, modules: Any, message: str) -> None:
    pooling = {"pooling_mode_mean_tokens": True}
    folder = make({"config.json": BERT, "modules.json": modules, "p/config.json": pooling})
    assert message in refusal(read_bi_encoder, folder)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({}, ("mean",)),
        ({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": False}, ("max",)),
        ({"pooling_mode_weightedmean_tokens": True}, ("weightedmean",)),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, ("mean_sqrt_len",)),
        ({"pooling_mode_mean_tokens": False}, None),
        ({"pooling_mode": "attention"}, None),
    ],
)
def test_pooling_modes(make: Make, pooling: Any, expected: tuple[str, ...] | None) -> None:
    modules = chain(("Transformer", ""), ("Pooling", "p"))
    folder = make({"config.json": BERT, "modules.json": modules, "p/config.json": pooling})
    if expected is None:
        assert "names no pooling mode" in refusal(read_bi_encoder, folder)
    else:
        assert read_bi_encoder(folder).pooling == expected


@pytest.mark.parametrize(
    ("config", "tokenizer", "own", "expected"),
    [
        (BERT, {"model_max_length": 384}, None, 384),
        (BERT, {"model_max_length": 1e30}, None, 512),
        (BERT, {"model_max_length": 128}, 256, 256),
        (BERT, {}, 9999, 512),
        # Their positions begin behind the padding's: 514 are room for 512 tokens.
        (
            {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1},
            {},
            None,
            512,
        ),
        ({"model_type": "t5"}, {}, None, 512),
    ],
)
def test_the_longest_input(
    make: Make, config: Any, tokenizer: Any, own: int | None, expected: int
) -> None:
    files = {"config.json": config, "tokenizer_config.json": tokenizer}
    if own is not None:
        files["sentence_bert_config.json"] = {"max_seq_length": own}
    assert read_bi_encoder(make(files)).max_tokens == expected


def test_a_cross_encoder_is_a_classifier_with_one_label(make: Make) -> None:
    folder = make({"config.json": BERT | CLASSIFIER})
    found = read_cross_encoder(folder)
    assert (found.cross, found.activation, found.has_segments) == (True, "Sigmoid", True)
    two = {"id2label": {"0": "no", "1": "yes"}}
    make({"config.json": BERT | CLASSIFIER | two})
    assert "has 2 labels" in refusal(read_cross_encoder, folder)
    make({"config.json": BERT | {"architectures": ["BertModel"]}})
    assert "ForSequenceClassification" in refusal(read_cross_encoder, folder)


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, "Identity"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.Tanh"}}, "Tanh"),
        ({"sbert_ce_default_activation_function": "os.system"}, None),
    ],
)
def test_a_cross_encoder_may_name_its_activation(
    make: Make, named: Any, expected: str | None
) -> None:
    folder = make({"config.json": BERT | CLASSIFIER | named})
    if expected is None:
        assert "'os.system' is not supported" in refusal(read_cross_encoder, folder)
    else:
        assert read_cross_encoder(folder).activation == expected


def test_pickled_weights_are_refused_unless_allowed(make: Make) -> None:
    folder = make({"config.json": BERT}, weights="pytorch_model.bin")
    assert "reading a pickle can run code" in refusal(read_bi_encoder, folder)
    found = read_bi_encoder(folder, allow_pickle=True)
    assert found.files[-1].name == "pytorch_model.bin"
    (folder / "model.safetensors").touch()
    assert read_bi_encoder(folder).files[-1].name == "model.safetensors"


def test_missing_weights_and_parts_of_them_are_named(make: Make) -> None:
    folder = make({"config.json": BERT}, weights="x")
    assert "no weights" in refusal(read_bi_encoder, folder)
    table = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    make({"model.safetensors.index.json": {"weight_map": table}}, weights="model-1.safetensors")
    assert "lacks 1 of 2 files, such as model-2.safetensors" in refusal(read_bi_encoder, folder)
    (folder / "model-2.safetensors").touch()
    assert len(read_bi_encoder(folder).files) == 4
    make({"model.safetensors.index.json": {"weight_map": {"a": "../x.safetensors"}}})
    (folder / "model.safetensors").unlink()
    assert "no 'weight_map' of file names" in refusal(read_bi_encoder, folder)


@pytest.mark.parametrize("content", ["", "[]", "\ufeff{", "null"])
def test_a_config_that_is_no_object_is_refused(make: Make, content: str) -> None:
    assert "config.json" in refusal(read_bi_encoder, make({"config.json": content}))
