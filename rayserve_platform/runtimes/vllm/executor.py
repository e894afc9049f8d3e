"""vLLM's executor for a CPU, whose waiting costs no core."""

import time
from collections.abc import Callable
from typing import Any

from vllm.v1.executor.multiproc_executor import MultiprocExecutor

NAP_S = 0.0001
"""Between two looks at whether a worker has answered. A step takes some 200 times as long."""


class NappingExecutor(MultiprocExecutor):  # type: ignore[misc]
    """Naps until a worker answers, where vLLM looks again and again.

    Beside GPUs there is a core to spare for that. On a CPU it is taken from whatever else runs
    there; and where all cores look busy, what wakes up interrupts the workers as often as the wait
    for them.
    """

    def _init_executor(self) -> None:
        super()._init_executor()
        for queue in self.response_mqs:
            # vLLM has no setting for it: only a second without an answer makes it sleep.
            condition = queue._spin_condition  # noqa: SLF001
            condition.wait = _napping(condition, condition.wait)


def _napping(condition: Any, wait: Callable[..., None]) -> Callable[..., None]:
    def nap(timeout_ms: int | None = None) -> None:
        if time.monotonic() <= condition.last_read + condition.busy_loop_s:
            time.sleep(NAP_S)
        else:
            wait(timeout_ms=timeout_ms)

    return nap
