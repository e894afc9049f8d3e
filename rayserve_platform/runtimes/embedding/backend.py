"""What computes a model: torch or OpenVINO, each behind this one seam."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Result = NDArray[np.float32]


class Backend(Protocol):
    """A loaded model. `run` blocks and is called from several threads at once.

    Args:
        lanes: calls that gain from running side by side.
        call_tokens: what a call costs beside its tokens, in tokens; measured.
    """

    lanes: int
    call_tokens: int

    def run(self, ids: Ids, mask: Ids, segments: Ids, *, alone: bool) -> Result:
        """Return one row a text: its vector, or its score.

        Args:
            ids: tokens [texts, longest], padded.
            mask: 1 where there is a token.
            segments: 1 where the second text of a pair is.
            alone: no other call runs meanwhile, so this one may take all threads.
        """
        ...

    def close(self) -> None:
        """Release the model's memory."""
        ...
