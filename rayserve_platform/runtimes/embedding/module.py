"""A model as one torch module: tokens in, vectors or scores out.

Pooling follows sentence-transformers' `models/Pooling.py`. The torch backend runs it as it is, and
OpenVINO's graph is traced from it, so both compute the same.
"""

import logging
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTextEncoding,
)
from transformers.utils.logging import disable_progress_bar

from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.formats.sentence_transformers import Dense, Encoder
from rayserve_platform.formats.weights import weight_files

log = logging.getLogger("rayserve.embedding")

UNUSED = ("pooler.", "embeddings.position_ids")
"""Parts of a transformer that a bi-encoder doesn't use, and that weights may leave out."""

FAR_BELOW = -1e9
"""What padding is replaced with before the maximum is taken."""


class BiEncoder(nn.Module):  # type: ignore[misc]  # torch is Any here
    """Token ids and their mask [n, longest] to vectors [n, dimension], in float32."""

    def __init__(self, transformer: Any, encoder: Encoder) -> None:
        super().__init__()
        self.transformer = transformer
        self.modes = encoder.pooling
        steps = [_dense(step) if isinstance(step, Dense) else _Normalize() for step in encoder.head]
        self.head = nn.Sequential(*steps)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Run the transformer, pool its tokens, and pass the vectors through the head."""
        output = self.transformer(input_ids=input_ids, attention_mask=attention_mask)
        hidden = output.last_hidden_state.float()
        pooled = [_pooled(mode, hidden, attention_mask) for mode in self.modes]
        vectors: Tensor = self.head(torch.cat(pooled, 1))
        return vectors


class CrossEncoder(nn.Module):  # type: ignore[misc]  # torch is Any here
    """Token ids and their mask [n, longest] to scores [n], in float32."""

    def __init__(self, transformer: Any, encoder: Encoder) -> None:
        super().__init__()
        self.transformer = transformer
        self.activation = getattr(nn, encoder.activation)()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Run the classifier and pass its one logit through the activation."""
        given = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        output = self.transformer(input_ids=input_ids, attention_mask=attention_mask, **given)
        scores: Tensor = self.activation(output.logits.float())[:, 0]
        return scores


class _Normalize(nn.Module):  # type: ignore[misc]  # torch is Any here
    def forward(self, vectors: Tensor) -> Tensor:
        return nn.functional.normalize(vectors, p=2.0, dim=1)


def _dense(step: Dense) -> nn.Module:
    """Return a fully connected layer with its weights."""
    linear = nn.Linear(step.in_features, step.out_features, bias=step.bias)
    path = weight_files(step.directory, allow_pickle=True)[-1]
    if path.suffix == ".safetensors":
        weights = load_file(path)
    else:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    linear.load_state_dict({name.removeprefix("linear."): w for name, w in weights.items()})
    return nn.Sequential(linear, getattr(nn, step.activation)())


def _pooled(mode: str, hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Make one vector of a text's tokens [n, longest, width]."""
    mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
    match mode:
        case "cls":
            return hidden[:, 0]
        case "max":
            return torch.where(mask > 0, hidden, FAR_BELOW).max(1).values
        case "lasttoken":
            place = (attention_mask.sum(1, keepdim=True) - 1).clamp(min=0).unsqueeze(-1)
            return torch.gather(hidden, 1, place.expand(-1, 1, hidden.shape[-1])).squeeze(1)
        case "weightedmean":
            mask = mask * torch.cumsum(torch.ones_like(mask), 1)
        case _:
            pass
    count = mask.sum(1).clamp(min=1e-9)
    summed = (hidden * mask).sum(1)
    return summed / (torch.sqrt(count) if mode == "mean_sqrt_len" else count)


def build(encoder: Encoder, *, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Load a model on the CPU, ready to compute.

    Raises:
        PlatformError: INVALID_ARGUMENT if transformers can't load it, or its weights are not whole.
    """
    disable_progress_bar()  # a replica's log is no terminal
    config = _map_errors(AutoConfig.from_pretrained, encoder)
    if encoder.cross:
        kind = AutoModelForSequenceClassification
    else:
        kind = AutoModelForTextEncoding if config.is_encoder_decoder else AutoModel
    loaded, found = _map_errors(
        kind.from_pretrained,
        encoder,
        dtype=dtype,
        output_loading_info=True,
        use_safetensors=any(path.suffix == ".safetensors" for path in encoder.files),
    )
    unused = () if encoder.cross else UNUSED
    missing = [name for name in found["missing_keys"] if not str(name).startswith(unused)]
    if missing:
        message = f"the weights are not whole: {len(missing)} tensors are missing"
        raise PlatformError(Code.INVALID_ARGUMENT, message, param="source")
    module = CrossEncoder(loaded, encoder) if encoder.cross else BiEncoder(loaded, encoder)
    return module.eval().requires_grad_(requires_grad=False)


def _map_errors(load: Any, encoder: Encoder, **options: Any) -> Any:
    """Load with transformers, whose errors hold paths of this machine and long advice."""
    try:
        return load(encoder.transformer, local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:
        log.exception("transformers can't load the model")
        message = f"transformers can't load the model ({type(error).__name__}); the log says why"
        raise PlatformError(Code.INVALID_ARGUMENT, message, param="source") from error
