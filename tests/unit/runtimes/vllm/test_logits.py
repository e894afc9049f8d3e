"""Our logits processors, held against transformers' own of the same names."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    ExponentialDecayLengthPenalty,
    LogitsProcessorList,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

from rayserve_platform.runtimes.vllm import logits_v1, logits_v2
from rayserve_platform.runtimes.vllm.logits import (
    HIGHEST_LOGIT,
    LENGTH,
    TYPICAL,
    Typical,
    keep_typical,
    penalize_length,
    processors_for,
)

VOCABULARY = 257
EOS = 2


def rows(count: int = 1, *, seed: int = 1, spread: float = 4.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, VOCABULARY, generator=generator) * spread


def params(extra: dict[str, Any] | None = None, **fields: Any) -> SamplingParams:
    made = SamplingParams(extra_args=extra, **fields)
    made.update_from_generation_config({}, EOS)
    return made


def typical(p: float = 0.3, k: int = 0, top_p: float = 1.0) -> dict[str, Any]:
    return {TYPICAL: [p, k, top_p]}


# ---------------------------------------------------------------- the arithmetic


@pytest.mark.parametrize("p", [0.05, 0.5, 0.95])
@pytest.mark.parametrize(("k", "top_p"), [(0, 1.0), (20, 1.0), (0, 0.6), (20, 0.6), (9999, 1.0)])
@pytest.mark.parametrize("spread", [0.5, 4.0])
def test_the_typical_filter_is_transformers_after_its_top_k_and_top_p(p, k, top_p, spread):
    chain = LogitsProcessorList()
    if k:
        chain.append(TopKLogitsWarper(k))
    if top_p < 1:
        chain.append(TopPLogitsWarper(top_p))
    chain.append(TypicalLogitsWarper(p))
    for seed in range(5):
        logits = rows(seed=seed, spread=spread)
        expected = chain(torch.zeros(1, 1, dtype=torch.long), logits.clone())[0]
        assert torch.equal(keep_typical(logits[0].clone(), Typical(p, k, top_p)), expected)
        assert 0 < int(expected.isfinite().sum()) < VOCABULARY


def test_the_typical_filter_can_drop_the_likeliest_token():
    logits = torch.tensor([2.0, *[1.0] * 9])
    kept = keep_typical(logits, Typical(0.3))
    assert kept[0] == -torch.inf
    assert kept.isfinite().any()


def test_what_a_grammar_forbids_stays_forbidden_by_the_typical_filter():
    logits = torch.full((VOCABULARY,), -torch.inf)
    logits[7], logits[9] = 3.0, 1.0
    kept = keep_typical(logits, Typical(0.99))
    assert set(kept.isfinite().nonzero().flatten().tolist()) <= {7, 9}
    assert not kept.isnan().any()


@pytest.mark.parametrize("past", [-3, 0, 1, 5])
@pytest.mark.parametrize("eos", [[EOS], [EOS, 11]])
def test_the_length_penalty_is_transformers(past, eos):
    for seed in range(3):
        logits = rows(seed=seed)
        theirs = ExponentialDecayLengthPenalty((10, 1.3), eos, input_ids_seq_length=4)
        expected = theirs(torch.zeros(1, 4 + 10 + past, dtype=torch.long), logits.clone())
        ours = penalize_length(logits.clone(), eos, torch.tensor([past]), torch.tensor([1.3]))
        torch.testing.assert_close(ours, expected)


def test_the_length_penalty_stays_finite_and_keeps_what_is_forbidden():
    logits = rows(2)
    logits[1, EOS] = -torch.inf
    far = penalize_length(logits, [EOS], torch.tensor([4000, 4000]), torch.tensor([10.0, 10.0]))
    assert far[0, EOS] == HIGHEST_LOGIT
    assert int(far[0].argmax()) == EOS
    assert (far[0] / 0.01).softmax(-1)[EOS] == 1.0
    assert far[1, EOS] == -torch.inf


# ---------------------------------------------------------------- in vLLM's model runners


def update(*, added=(), removed=(), moved=()) -> BatchUpdate:
    return BatchUpdate(batch_size=4, removed=removed, added=added, moved=moved)


def first_runner(kind: Any) -> Any:
    return kind(None, torch.device("cpu"), False)


def test_the_first_runner_filters_the_rows_that_ask_for_it_wherever_they_move():
    processor = first_runner(logits_v1.TypicalSampling)
    logits = rows(3)
    assert torch.equal(processor.apply(logits.clone()), logits)
    processor.update_state(update(added=[(0, params(), [], []), (1, params(typical()), [], [])]))
    filtered = processor.apply(logits.clone())
    assert torch.equal(filtered[[0, 2]], logits[[0, 2]])
    assert torch.equal(filtered[1], keep_typical(logits[1], Typical(0.3)))
    processor.update_state(update(moved=[(1, 2, MoveDirectionality.UNIDIRECTIONAL)]))
    moved = processor.apply(logits.clone())
    assert torch.equal(moved[:2], logits[:2])
    assert torch.equal(moved[2], keep_typical(logits[2], Typical(0.3)))
    processor.update_state(update(removed=[2]))
    assert torch.equal(processor.apply(logits.clone()), logits)


def test_the_first_runner_counts_new_tokens_as_they_are_written():
    processor = first_runner(logits_v1.LengthPenalty)
    written: list[int] = []
    processor.update_state(update(added=[(1, params({LENGTH: [2, 1.5]}), [5], written)]))
    logits = rows(2)
    for token in range(5):
        past = len(written) - 2
        expected = logits.clone()
        if past > 0:
            one = torch.tensor([past]), torch.tensor([1.5])
            expected[1:] = penalize_length(logits[1:].clone(), [EOS], *one)
        assert torch.equal(processor.apply(logits.clone()), expected)
        written.append(token)
        processor.update_state(None)


def states(*prompt_lengths: int) -> Any:
    lengths = torch.tensor(prompt_lengths, dtype=torch.int32)
    return SimpleNamespace(prompt_len=SimpleNamespace(gpu=lengths))


def context(slots: list[int], positions: list[int]) -> Any:
    """A batch whose rows belong to these slots and stand at these positions."""
    return SimpleNamespace(
        idx_mapping_np=np.array(sorted(set(slots))),
        expanded_idx_mapping=torch.tensor(slots),
        pos=torch.tensor(positions),
    )


def test_the_second_runner_filters_by_slot_under_the_requests_temperature():
    processor = logits_v2.TypicalSampling(None, states(0, 0))
    assert processor.add_request(0, params()) is False
    assert processor.add_request(1, params(typical(), temperature=0.5)) is True
    logits = rows(3)
    filtered = processor.apply(logits.clone(), context([1, 0, 1], [4, 4, 5]))
    assert torch.equal(filtered[1], logits[1])
    for row in (0, 2):
        kept = keep_typical(logits[row] / 0.5, Typical(0.3)).isfinite()
        assert torch.equal(filtered[row].isfinite(), kept)
        assert torch.equal(filtered[row][kept], logits[row][kept])
    assert processor.add_request(1, params()) is False, "the slot is another request's now"
    assert torch.equal(processor.apply(logits.clone(), context([1, 0, 1], [4, 4, 5])), logits)


def test_the_second_runner_counts_new_tokens_by_position_draft_tokens_too():
    processor = logits_v2.LengthPenalty(None, states(3, 6))
    assert processor.add_request(0, params()) is False
    assert processor.add_request(1, params({LENGTH: [2, 1.5]})) is True
    logits = rows(4)
    # Slot 1 has a prompt of 6: its rows have written 1, 3 and 4 tokens.
    changed = processor.apply(logits.clone(), context([0, 1, 1, 1], [9, 6, 8, 9]))
    expected = logits.clone()
    for row, past in ((2, 1), (3, 2)):
        one = torch.tensor([past]), torch.tensor([1.5])
        expected[row : row + 1] = penalize_length(logits[row : row + 1].clone(), [EOS], *one)
    assert torch.equal(changed, expected)


def test_a_greedy_request_is_not_filtered():
    processor = logits_v2.TypicalSampling(None, states(0))
    assert processor.add_request(0, params(typical(), temperature=0.0)) is False


@pytest.mark.parametrize(
    "extra",
    [
        {TYPICAL: 0.5},
        {TYPICAL: [0.5]},
        {TYPICAL: ["0.5", 0, 1.0]},
        {TYPICAL: [True, 0, 1.0]},
        {TYPICAL: [0.0, 0, 1.0]},
        {TYPICAL: [1.5, 0, 1.0]},
        {TYPICAL: [0.5, -1, 1.0]},
        {TYPICAL: [0.5, 0, 0.0]},
        {TYPICAL: [float("nan"), 0, 1.0]},
        {LENGTH: [1]},
        {LENGTH: [-1, 1.5]},
        {LENGTH: [0, 0.5]},
        {LENGTH: [0, 11]},
        {LENGTH: {"start": 0}},
    ],
)
def test_what_a_client_of_vllms_own_server_puts_there_is_checked(extra):
    name = "LengthPenalty" if LENGTH in extra else "TypicalSampling"
    for module in (logits_v1, logits_v2):
        with pytest.raises(ValueError, match="rayserve_"):
            getattr(module, name).validate_params(params(extra))


@pytest.mark.parametrize(
    ("runner", "v2", "speculative", "modules"),
    [
        ("generate", False, None, {"logits_v1"}),
        ("generate", False, object(), set()),
        ("generate", True, None, {"logits_v2"}),
        ("generate", True, object(), {"logits_v2"}),
        ("pooling", True, None, set()),
    ],
)
def test_an_engine_gets_the_processors_that_its_runner_takes(runner, v2, speculative, modules):
    config = SimpleNamespace(
        model_config=SimpleNamespace(runner_type=runner),
        use_v2_model_runner=v2,
        speculative_config=speculative,
    )
    paths = processors_for(config)
    assert {path.split(":")[0].rsplit(".", 1)[1] for path in paths} == modules
    assert len(paths) == 2 * len(modules)
