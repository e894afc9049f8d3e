"""Tiny models with random weights, made by their own configs, and transformers' own answers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    BloomConfig,
    GPT2Config,
    LlamaConfig,
    M2M100Config,
    MambaConfig,
    MistralConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
    T5Config,
)

TEXT = [
    "The capital of France is Paris, and the capital of Spain is Madrid.",
    "Translate English to German: the house is wonderful.",
    "A naïve café owner wrote 12 lines — each one longer than the last.",
]
PAD, START, END, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
SPECIAL = [PAD, START, END, UNKNOWN]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """As GPT-2's: bytes, merged; nothing is added to a text."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet),
    )
    return _wrapped(made)


def piece_tokenizer() -> PreTrainedTokenizerFast:
    """As T5's: pieces of words, an end token behind each text."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=SPECIAL, unk_token=UNKNOWN)
    made.train_from_iterator(TEXT, trainer)
    made.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, made.token_to_id(END))]
    )
    return _wrapped(made)


def _wrapped(made: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token=PAD, bos_token=START, eos_token=END, unk_token=UNKNOWN
    )


IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SMALL = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = SMALL | {"intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 128}
BART = {
    "vocab_size": 320,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 96,
    "decoder_start_token_id": 2,
}
T5 = {
    # As in T5's own checkpoints, there are more logits than tokens.
    "vocab_size": 128,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    "scale_decoder_outputs": False,
}
UNTIED = {"tie_word_embeddings": False}
"""As flan-t5. With random weights, tied ones repeat the last token for ever."""
KINDS: dict[str, Callable[[], Any]] = {
    "t5": lambda: T5Config(**T5, **IDS, **UNTIED),
    "bart": lambda: BartConfig(**BART, **IDS, **UNTIED, forced_eos_token_id=None),
    "m2m100": lambda: M2M100Config(**BART, **IDS, **UNTIED),
    "llama": lambda: LlamaConfig(**LLAMA, **IDS),
    "mistral": lambda: MistralConfig(**LLAMA, **IDS, sliding_window=8),
    "gpt2": lambda: GPT2Config(vocab_size=320, n_embd=32, n_layer=2, n_head=4, **IDS),
    "bloom": lambda: BloomConfig(
        vocab_size=320, hidden_size=32, n_layer=2, n_head=4, **IDS, **UNTIED
    ),
    "opt": lambda: OPTConfig(**SMALL, ffn_dim=64, word_embed_proj_dim=32, **IDS),
    "mamba": lambda: MambaConfig(vocab_size=320, hidden_size=32, num_hidden_layers=2, **IDS),
}
ENCODER_DECODER = ("t5", "bart", "m2m100")
DECODER = ("llama", "mistral", "gpt2", "bloom", "opt", "mamba")


def make_model(kind: str) -> Any:
    """Return a model whose weights spread enough that its choices are clear."""
    torch.manual_seed(11)
    config = KINDS[kind]()
    made = (AutoModelForSeq2SeqLM if kind in ENCODER_DECODER else AutoModelForCausalLM).from_config(
        config
    )
    for weights in made.parameters():
        if weights.dim() == 2:
            torch.nn.init.normal_(weights, std=0.25)
    return made.eval()


def save_model(kind: str, path: Path) -> None:
    """Write the directory of a kind of model."""
    make_model(kind).save_pretrained(path)
    tokenizer = piece_tokenizer() if kind == "t5" else byte_tokenizer()
    tokenizer.save_pretrained(path)


@dataclass(frozen=True)
class Written:
    """What a reference has written: new tokens, their log probabilities, the text."""

    ids: list[int]
    logprobs: list[float]
    text: str


class Reference:
    """transformers itself over the same directory."""

    def __init__(self, path: Path) -> None:
        self.is_encoder_decoder = bool(AutoConfig.from_pretrained(path).is_encoder_decoder)
        kind = AutoModelForSeq2SeqLM if self.is_encoder_decoder else AutoModelForCausalLM
        self.model = kind.from_pretrained(path, dtype="float32").eval()
        self.tokenizer = AutoTokenizer.from_pretrained(path)

    def generate(self, prompt: str, **how: Any) -> Written:
        """Run `generate` for one prompt."""
        ids = self.tokenizer(prompt, return_tensors="pt").input_ids
        with torch.inference_mode():
            out = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                return_dict_in_generate=True,
                output_logits=True,
                **how,
            )
        start = 1 if self.is_encoder_decoder else ids.shape[1]
        new = out.sequences[0, start:].tolist()
        logprobs = [
            logits[0].log_softmax(-1)[i].item() for logits, i in zip(out.logits, new, strict=True)
        ]
        text = self.tokenizer.decode(new, skip_special_tokens=True)
        return Written(new, logprobs, text)
