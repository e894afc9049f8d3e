"""The torch backend: any processor, and GPUs."""

from typing import Any

import torch

from rayserve_platform.formats.sentence_transformers import Encoder
from rayserve_platform.runtimes.embedding.backend import Ids, Result
from rayserve_platform.runtimes.embedding.module import build


class TorchBackend:
    """A model on torch. Calls run one at a time: each takes all threads, or the GPU.

    Args:
        encoder: what to build.
        device: `cpu` or `cuda`; Ray shows a replica its own GPU alone.
        precision: name of a torch dtype.
        threads: of computation, on the CPU; the process's own setting.
        segments: tell the texts of a pair apart.
    """

    lanes = 1

    def __init__(
        self, encoder: Encoder, *, device: str, precision: str, threads: int, segments: bool
    ) -> None:
        if device == "cpu":
            torch.set_num_threads(threads)
        # A call costs about 7 ms beside its work on the CPU; on a GPU the launch of its kernels
        # outweighs a batch of short texts.
        self.call_tokens = 48 if device == "cpu" else 2048
        self._segments = segments
        self._device = device
        self._module: Any = build(encoder, dtype=getattr(torch, precision)).to(device)

    def run(self, ids: Ids, mask: Ids, segments: Ids, *, alone: bool) -> Result:
        """Compute on the device and bring the result back."""
        given = (ids, mask, segments) if self._segments else (ids, mask)
        with torch.inference_mode():
            tensors = [torch.from_numpy(array).to(self._device) for array in given]
            result: Result = self._module(*tensors).float().cpu().numpy()
        return result

    def close(self) -> None:
        """Release the model's memory."""
        self._module = None
        if self._device == "cuda":
            torch.cuda.empty_cache()
