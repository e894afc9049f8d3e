"""Tiny models with random weights, of transformers' own classes, saved as it saves them."""

import json
import string
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaModel,
)

WORDS = ("first", "second", "sentence", "another", "test", "the", "quick", "fox", "un", "##able")
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    # Large enough that a wrong mask, position or segment shows in the second digit.
    "initializer_range": 0.3,
}


def wordpiece(specials: tuple[str, str, str, str], *, pad_first: bool) -> PreTrainedTokenizerFast:
    """A BERT-like tokenizer of letters and a few words: (begin, end, padding, unknown)."""
    begin, end, pad, unknown = specials
    names = [pad, unknown, begin, end] if pad_first else [begin, pad, end, unknown]
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    vocabulary = [*names, *letters, *(f"##{letter}" for letter in letters), *WORDS]
    ids = {token: place for place, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} $B:1 {end}:1",
        special_tokens=[(begin, ids[begin]), (end, ids[end])],
    )
    # As a saved tokenizer often has them; the limits of the server are its own.
    tokenizer.enable_truncation(6)
    tokenizer.enable_padding(length=6, pad_id=ids[pad], pad_token=pad)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token=begin,
        sep_token=end,
        pad_token=pad,
        unk_token=unknown,
        model_max_length=40,
    )


def byte_pairs() -> PreTrainedTokenizerFast:
    """A RoBERTa-like tokenizer of single bytes, whose padding is not token 0."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<s>", "<pad>", "</s>", "<unk>"]
    ids = {token: place for place, token in enumerate([*names, *alphabet])}
    tokenizer = Tokenizer(models.BPE(ids, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=40,
    )


def save(model: Any, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def bert(folder: Path, *, positions: int = 64) -> Path:
    tokenizer = wordpiece(("[CLS]", "[SEP]", "[PAD]", "[UNK]"), pad_first=True)
    config = BertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=positions, pad_token_id=0, **SIZES
    )
    torch.manual_seed(1)
    return save(BertModel(config), tokenizer, folder)


def bert_cross(folder: Path, *, labels: int = 1) -> Path:
    tokenizer = wordpiece(("[CLS]", "[SEP]", "[PAD]", "[UNK]"), pad_first=True)
    config = BertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=64,
        num_labels=labels,
        pad_token_id=0,
        **SIZES,
    )
    torch.manual_seed(2)
    return save(BertForSequenceClassification(config), tokenizer, folder)


def mpnet(folder: Path) -> Path:
    tokenizer = wordpiece(("<s>", "</s>", "<pad>", "<unk>"), pad_first=False)
    config = MPNetConfig(
        vocab_size=len(tokenizer), max_position_embeddings=64, pad_token_id=1, **SIZES
    )
    torch.manual_seed(3)
    return save(MPNetModel(config), tokenizer, folder)


def roberta(folder: Path, *, positions: int = 66) -> Path:
    tokenizer = byte_pairs()
    config = RobertaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=positions, pad_token_id=1, **SIZES
    )
    torch.manual_seed(4)
    return save(RobertaModel(config), tokenizer, folder)


def roberta_cross(folder: Path) -> Path:
    tokenizer = byte_pairs()
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=66,
        num_labels=1,
        pad_token_id=1,
        type_vocab_size=1,
        **SIZES,
    )
    torch.manual_seed(5)
    return save(RobertaForSequenceClassification(config), tokenizer, folder)


def chain(
    folder: Path, *modules: str, pooling: str = "pooling_mode_mean_tokens", length: int = 12
) -> Path:
    """Make a sentence-transformers model of a transformer's folder: `Pooling`, `Dense`, …"""
    listed = [("Transformer", ""), *((kind, f"{i}_{kind}") for i, kind in enumerate(modules, 1))]
    content = [
        {
            "idx": i,
            "name": str(i),
            "path": path,
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, (kind, path) in enumerate(listed)
    ]
    (folder / "modules.json").write_text(json.dumps(content))
    limits = {"max_seq_length": length, "do_lower_case": False}
    (folder / "sentence_bert_config.json").write_text(json.dumps(limits))
    for kind, path in listed[1:]:
        (folder / path).mkdir(exist_ok=True)
        if kind == "Pooling":
            modes = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": False}
            settings: dict[str, Any] = modes | dict.fromkeys(pooling.split(), True)
        elif kind == "Dense":
            settings = dense(folder / path)
        else:
            continue
        (folder / path / "config.json").write_text(json.dumps(settings))
    return folder


def dense(folder: Path) -> dict[str, Any]:
    """Write the weights of a Dense module, and return its config."""
    from safetensors.torch import save_file

    torch.manual_seed(6)
    linear = torch.nn.Linear(32, 16)
    weights = {"linear.weight": linear.weight.detach(), "linear.bias": linear.bias.detach()}
    save_file(weights, folder / "model.safetensors")
    return {
        "in_features": 32,
        "out_features": 16,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    }
