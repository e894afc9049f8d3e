"""The answers in progress, in batches that take their steps together."""

import logging
from collections.abc import Sequence

import torch

from rayserve_platform.core.errors import (
    PlatformError,
    engine_unavailable,
    internal_error,
    overloaded,
)
from rayserve_platform.runtimes.torch.company import Company
from rayserve_platform.runtimes.torch.job import Job
from rayserve_platform.runtimes.torch.network import Network
from rayserve_platform.runtimes.torch.results import Results
from rayserve_platform.runtimes.torch.row import Row
from rayserve_platform.runtimes.torch.state import State

log = logging.getLogger("rayserve.torch")


class Batch:
    """Rows that take their steps together, and the model's state of them."""

    def __init__(self, rows: list[Row], state: State) -> None:
        self.rows = rows
        self.state = state

    def keep(self, places: Sequence[int]) -> None:
        """Let all other rows go."""
        if len(places) < len(self.rows):
            self.rows = [self.rows[place] for place in places]
            if places:
                self.state.keep(places)


class Batches:
    """All batches. Used by the decoding thread alone.

    Args:
        network: the model.
        company: which answers can share a batch.
        prefill_tokens: most prompt tokens that are read together.
    """

    def __init__(self, network: Network, company: Company, prefill_tokens: int) -> None:
        self._network = network
        self._company = company
        self._prefill_tokens = prefill_tokens
        self._batches: list[Batch] = []

    def __len__(self) -> int:
        """Return the number of answers in progress."""
        return sum(len(batch.rows) for batch in self._batches)

    def read_together(self, jobs: Sequence[Job]) -> bool:
        """Whether the prompts of several requests can be read at once."""
        if self._company is Company.NONE or any(job.prompt_logits for job in jobs):
            return False
        lengths = {len(job.prompt) for job in jobs}
        if self._company is Company.EQUAL and not self._network.is_encoder_decoder:
            return len(lengths) == 1
        return len(jobs) * max(lengths) <= self._prefill_tokens

    def drop_cancelled(self) -> None:
        """Let the answers of cancelled requests go."""
        for batch in self._batches:
            batch.keep([i for i, row in enumerate(batch.rows) if not row.job.cancelled])
        self._drop_empty()

    def begin(self, jobs: Sequence[Job], results: Results) -> None:
        """Read prompts and write the first token of each answer."""
        try:
            read = self._read(jobs)
        except torch.OutOfMemoryError:
            log.exception("no memory for %d prompts", len(jobs))
            for job in jobs:
                results.end(job, overloaded())
            return
        except Exception:
            for job in jobs:
                results.end(job, engine_unavailable())
            raise
        for batch, logits in read:
            self._write(batch, logits, results)
            if batch.rows:
                self._seat(batch)

    def step(self, results: Results) -> None:
        """Write the next token of every answer."""
        for batch in self._batches:
            try:
                logits = self._network.decode(batch.state, [row.last_id for row in batch.rows])
            except torch.OutOfMemoryError:
                log.exception("no memory for a step of %d answers", len(batch.rows))
                for job in {id(row.job): row.job for row in batch.rows}.values():
                    results.end(job, overloaded())
                batch.keep([])
            else:
                self._write(batch, logits, results)
        self._drop_empty()

    def _read(self, jobs: Sequence[Job]) -> list[tuple[Batch, torch.Tensor]]:
        """Read prompts, each once; return their rows, with the logits of the first tokens.

        Where rows can't be copied, a prompt is read once for each of its answers.
        """
        if jobs[0].prompt_logits:
            state, logits = self._read_described(jobs[0])
        else:
            state, logits = self._network.prefill([job.prompt for job in jobs])
        rows = [Row(job, answer) for job in jobs for answer in job.answers]
        if len(rows) == len(jobs):
            return [(Batch(rows, state), logits)]
        if self._company is Company.NONE:
            others = [self._network.prefill([row.job.prompt]) for row in rows[1:]]
            read = [(state, logits), *others]
            return [
                (Batch([row], state), logits)
                for row, (state, logits) in zip(rows, read, strict=True)
            ]
        places = [i for i, job in enumerate(jobs) for _ in job.answers]
        state.keep(places)
        return [(Batch(rows, state), logits[places])]

    def _read_described(self, job: Job) -> tuple[State, torch.Tensor]:
        """Read a prompt whose tokens are described by the logits before each of them."""
        tokens = list(job.describer.plain(job.prompt[:1]))

        def see(logits: torch.Tensor) -> None:
            ids = job.prompt[len(tokens) : len(tokens) + len(logits)]
            tokens.extend(job.describer.tokens(ids, logits[: len(ids)]))

        read = self._network.prefill_seen(job.prompt, see)
        job.prompt_tokens = tuple(tokens)
        return read

    def _seat(self, batch: Batch) -> None:
        """Add rows to a batch that they can share, or let them be one of their own."""
        for other in self._batches:
            equal = other.state.length == batch.state.length
            if self._company is Company.ANY or (self._company is Company.EQUAL and equal):
                other.state.append(batch.state)
                other.rows += batch.rows
                return
        self._batches.append(batch)

    def _write(self, batch: Batch, logits: torch.Tensor, results: Results) -> None:
        """Write the next token of each row; rows that end or fail leave the batch."""
        best: list[int | None] = [None] * len(batch.rows)
        if any(row.takes_likeliest for row in batch.rows):
            best = logits.argmax(-1).tolist()
        left: list[int] = []
        for place, row in enumerate(batch.rows):
            if row.job.is_over:
                continue
            try:
                chunk, ended = row.advance(logits[place], best[place])
            except PlatformError as error:
                results.end(row.job, error)
                continue
            except Exception:
                # One request's processors must not take the others down.
                log.exception("request %s failed", row.job.request.request_id)
                results.end(row.job, internal_error())
                continue
            if chunk is not None:
                results.add(row.job, chunk)
            if not ended:
                left.append(place)
            elif row.job.count_ended():
                results.end(row.job)
        batch.keep([place for place in left if not batch.rows[place].job.is_over])

    def _drop_empty(self) -> None:
        self._batches = [batch for batch in self._batches if batch.rows]
