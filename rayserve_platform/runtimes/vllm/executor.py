"""vLLM's executor for a CPU, whose waiting costs no core."""

import time

from vllm.v1.executor.multiproc_executor import MultiprocExecutor

NAP_S = 0.0003
"""Between two looks at whether a worker has answered. Shorter naps interrupt what else runs on
their core; longer ones are felt in steps of 20 ms."""


class NappingExecutor(MultiprocExecutor):  # type: ignore[misc]  # vLLM is untyped here
    """Naps until a worker answers, where vLLM looks again and again.

    Beside GPUs there is a core to spare for that. On a CPU it is taken from whatever else runs
    there; and where all cores look busy, what wakes up interrupts the workers as often as the wait
    for them. vLLM's other way, which it takes after a second without an answer, is to sleep until a
    socket wakes it: that loses wake-ups, and looks again after 5 s.
    """

    def _init_executor(self) -> None:
        super()._init_executor()
        for queue in self.response_mqs:
            # vLLM has no setting for it. Nobody waits here but for a step that is running.
            queue._spin_condition.wait = _nap  # noqa: SLF001


def _nap(**_: object) -> None:
    """Stand in for `SpinCondition.wait`, whose caller looks again and comes back."""
    time.sleep(NAP_S)
