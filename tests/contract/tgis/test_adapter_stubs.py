"""The client stubs that vllm-tgis-adapter ships, as they are."""

import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

CLIENT = Path(__file__).with_name("adapter_stubs.py")


@pytest.fixture
async def answers(
    serve: Callable[..., Awaitable[Any]], run: Callable[..., Awaitable[bytes]]
) -> dict[str, Any]:
    """What a client with those stubs gets from each method, as JSON."""
    server = await serve(max_model_len=64)
    # Isolated and with an empty environment: it finds the installed packages and nothing of ours.
    written = await run(sys.executable, "-I", str(CLIENT), server.target, env={})
    found: dict[str, Any] = json.loads(written)
    assert found["modules"] == []
    return found


async def test_generate_answers_every_prompt_of_the_batch(answers):
    once, twice = answers["generate"]["responses"]
    assert (once["input_token_count"], twice["input_token_count"]) == (4, 11)
    for one, prompt in ((once, "Once"), (twice, "Twice a day")):
        assert one["text"].startswith(prompt)
        assert len(one["text"]) == len(prompt) + 6
        assert one["generated_token_count"] == len(one["tokens"]) == 6
        assert one["stop_reason"] == "MAX_TOKENS"
        assert one["seed"] == "7"
        assert all(token["logprob"] <= 0 for token in one["tokens"])


async def test_the_stream_adds_up_to_the_whole_answer(answers):
    whole = answers["generate"]["responses"][0]
    first, *pieces = answers["stream"]
    assert first == {"input_token_count": 4, "text": "Once", "seed": "7"}
    assert "Once" + "".join(piece.get("text", "") for piece in pieces) == whole["text"]
    assert [token for piece in pieces for token in piece["tokens"]] == whole["tokens"]
    counts = [piece["generated_token_count"] for piece in pieces]
    assert counts == sorted(counts)
    assert (counts[-1], pieces[-1]["stop_reason"]) == (6, "MAX_TOKENS")
    assert not any("stop_reason" in piece for piece in pieces[:-1])


async def test_tokenize_gives_counts_tokens_and_offsets(answers):
    once, accent = answers["tokenize"]["responses"]
    assert (once["token_count"], once["tokens"]) == (4, ["O", "n", "c", "e"])
    assert accent["tokens"] == ["é", "!"]
    assert accent["offsets"] == [{"end": 1}, {"start": 1, "end": 2}]


async def test_model_info_tells_the_limits(answers):
    # DECODER_ONLY is the value 0, which JSON leaves out.
    assert answers["model"] == {"max_sequence_length": 64, "max_new_tokens": 1024}


async def test_a_refusal_has_its_code_and_words(answers):
    assert answers["refused"] == {
        "code": "INVALID_ARGUMENT",
        "details": "top_p must be > 0.0 and <= 1.0",
    }
