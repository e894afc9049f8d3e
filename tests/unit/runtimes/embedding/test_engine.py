"""The verbs of the runtime, and what becomes of models that can't be loaded."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from rayserve_platform.core.cards import Task
from rayserve_platform.core.errors import Code, PlatformError
from rayserve_platform.core.messages import Chat, Detokenize, Embed, Generate, Tokenize, Turn
from rayserve_platform.core.scores import Score
from rayserve_platform.formats.caikit_convert import convert
from rayserve_platform.formats.progress import unheard
from rayserve_platform.runtimes import load
from rayserve_platform.runtimes.embedding import openvino_backend
from rayserve_platform.runtimes.embedding.engine import EmbeddingRuntime
from tests.unit.runtimes.embedding import tiny
from tests.unit.runtimes.embedding.conftest import settings

Start = Callable[..., Awaitable[EmbeddingRuntime]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a runtime on torch with the settings' arguments by name."""
    started: list[EmbeddingRuntime] = []

    async def make(embedding: dict[str, Any] | None = None, **args: Any) -> EmbeddingRuntime:
        runtime = EmbeddingRuntime(
            settings(embedding={"backend": "torch"} | (embedding or {}), **args)
        )
        await runtime.start()
        started.append(runtime)
        return runtime

    yield make
    for runtime in started:
        await runtime.stop()


async def refusal(asking: Awaitable[object]) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        await asking
    return caught.value


async def test_the_engine_is_found_by_its_name(tmp_path: Path) -> None:
    app = settings(models=[{"id": "m", "source": str(tiny.bert(tmp_path / "m"))}])
    engine = load("embedding", app, None)
    assert isinstance(engine, EmbeddingRuntime)
    assert (await refusal(engine.check_health())).code is Code.UNAVAILABLE


async def test_cards_say_what_each_model_can_do(start: Start, tmp_path: Path) -> None:
    bi = tiny.chain(tiny.bert(tmp_path / "bi"), "Pooling", "Normalize")
    cross = tiny.bert_cross(tmp_path / "cross")
    runtime = await start(
        models=[
            {"id": "bi", "source": str(bi), "aliases": ["b"]},
            {"id": "cross", "source": str(cross)},
        ]
    )
    one, two = await runtime.describe()
    assert (one.id, one.aliases, one.root, one.runtime) == ("bi", ("b",), str(bi), "embedding")
    assert one.tasks == {Task.EMBED, Task.SCORE}
    assert (one.max_model_len, one.dimension) == (12, 32)
    assert one.size_bytes == sum(p.stat().st_size for p in bi.rglob("*") if p.is_file())
    assert two.tasks == {Task.SCORE}
    assert (two.max_model_len, two.dimension, two.problem) == (40, None, "")
    await runtime.check_health()


async def test_a_models_directory_serves_what_can_be_served(start: Start, tmp_path: Path) -> None:
    root = tmp_path / "models"
    for name, make in (("one", tiny.bert), ("two", tiny.bert_cross)):
        model = make(tmp_path / name)
        convert(model, root / name, kind=None, allow_pickle=False, report=unheard)
    (root / "broken").mkdir()
    (root / "broken/config.yml").write_text("module_id: 1e04e21b-7009-499e-abdd-41e5984c2e7d\n")
    (root / "empty").mkdir()
    (root / ".hidden").mkdir()
    (root / "README.md").write_text("not a model")
    runtime = await start(models_dir=str(root))
    cards = {card.id: card for card in await runtime.describe()}
    assert set(cards) == {"one", "two", "broken", "empty"}
    assert "sentence splitting" in cards["broken"].problem
    assert cards["empty"].problem
    assert not cards["one"].problem
    assert str(tmp_path) not in cards["broken"].problem
    found = await runtime.embed(Embed(model="one", inputs=("a",)))
    assert found.vectors.shape == (1, 32)
    scores = await runtime.score(Score(model="two", queries=("a",), documents=("b", "c")))
    assert scores.scores.shape == (1, 2)
    assert (
        await refusal(runtime.embed(Embed(model="broken", inputs=("a",))))
    ).code is Code.NOT_FOUND


async def test_a_named_model_and_a_directory_stand_together(start: Start, tmp_path: Path) -> None:
    root = tmp_path / "models"
    tiny.bert(root / "m")
    tiny.bert(root / "n")
    runtime = await start(models=[{"id": "m", "source": str(root / "m")}], models_dir=str(root))
    assert [card.id for card in await runtime.describe()] == ["m", "n"]


async def test_nothing_to_serve_fails_the_start_with_the_reason(tmp_path: Path) -> None:
    for args, message in (
        ({"models": [{"id": "m", "source": str(tmp_path / "nowhere")}]}, "no such directory"),
        ({"models_dir": str(tmp_path)}, "models_dir holds no model"),
        ({"models_dir": str(tmp_path / "nowhere")}, "models_dir: No such file"),
    ):
        runtime = EmbeddingRuntime(settings(**args))
        assert message in (await refusal(runtime.start())).message


async def test_a_text_generation_model_is_sent_to_another_runtime(tmp_path: Path) -> None:
    (tmp_path / "m/artifacts").mkdir(parents=True)
    (tmp_path / "m/config.yml").write_text(
        "module_id: f9181353-4ccf-4572-bd1e-f12bcda26792\nartifact_path: artifacts\n"
    )
    runtime = EmbeddingRuntime(settings(models_dir=str(tmp_path)))
    assert "generates text" in (await refusal(runtime.start())).message


def _drop(name: str, weights: dict[str, torch.Tensor]) -> None:
    del weights[name]


def _spoil(name: str, weights: dict[str, torch.Tensor]) -> None:
    weights[name] = weights[name] * float("nan")


@pytest.mark.parametrize(
    ("damage", "message"), [(_drop, "1 tensors are missing"), (_spoil, "weights are damaged")]
)
async def test_damaged_weights_are_noticed(tmp_path: Path, damage: Any, message: str) -> None:
    folder = tiny.bert(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    damage("encoder.layer.1.output.dense.weight", weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    app = settings(models=[{"id": "m", "source": str(folder)}], embedding={"backend": "torch"})
    assert message in (await refusal(EmbeddingRuntime(app).start())).message


async def test_pickled_weights_are_taken_only_when_asked_for(start: Start, tmp_path: Path) -> None:
    folder = tiny.bert(tmp_path / "m")
    plain = await start(models=[{"id": "m", "source": str(folder)}])
    expected = await plain.embed(Embed(model="m", inputs=("the fox",)))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    models = [{"id": "m", "source": str(folder)}]
    app = settings(models=models, embedding={"backend": "torch"})
    assert "allow_pickle" in (await refusal(EmbeddingRuntime(app).start())).message
    allowed = await start({"allow_pickle": True}, models=models)
    found = await allowed.embed(Embed(model="m", inputs=("the fox",)))
    np.testing.assert_array_equal(found.vectors, expected.vectors)


async def test_a_model_that_openvino_cannot_convert_runs_on_torch(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise PlatformError(Code.INTERNAL, "can't be converted")

    monkeypatch.setattr(openvino_backend, "_convert", fail)
    models = [{"id": "m", "source": str(tiny.bert(tmp_path / "m"))}]
    runtime = await start({"backend": "auto"}, models=models)
    assert (await runtime.describe())[0].engine_version.startswith("torch ")
    assert (await runtime.embed(Embed(model="m", inputs=("a",)))).vectors.shape == (1, 32)
    app = settings(models=models, embedding={"backend": "openvino"})
    assert "can't be converted" in (await refusal(EmbeddingRuntime(app).start())).message


async def test_a_conversion_that_fails_in_its_process_is_reported_without_its_text(
    tmp_path: Path,
) -> None:
    folder = tiny.bert(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(b"not weights")
    app = settings(models=[{"id": "m", "source": str(folder)}], embedding={"backend": "openvino"})
    message = (await refusal(EmbeddingRuntime(app).start())).message
    assert message == "the model can't be converted to OpenVINO; the log says why"


@pytest.mark.parametrize(
    ("flags", "can"),
    [("fma avx2 avx512f", False), ("avx2 avx_vnni", True), ("avx512_vnni", True), ("", False)],
)
def test_int8_is_offered_where_the_processor_has_it(flags: str, can: bool) -> None:
    assert openvino_backend.can_int8(f"flags\t\t: fpu {flags}\n") is can


async def test_scores_of_a_bi_encoder_are_cosines(start: Start, tmp_path: Path) -> None:
    folder = tiny.bert(tmp_path / "m")
    runtime = await start(models=[{"id": "m", "source": str(folder)}])
    texts = ("the fox", "first", "a test", "un")
    vectors = (await runtime.embed(Embed(model="m", inputs=texts))).vectors
    assert not np.allclose(np.linalg.norm(vectors, axis=1), 1)
    found = await runtime.score(Score(model="m", queries=texts[:2], documents=texts[2:]))
    a, b = torch.tensor(vectors[:2]), torch.tensor(vectors[2:])
    expected = torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=2)
    np.testing.assert_allclose(found.scores, expected.numpy(), atol=1e-6)
    empty = await runtime.score(Score(model="m", queries=("a",), documents=()))
    assert empty.scores.shape == (1, 0)


async def test_a_cross_encoder_gives_no_vectors(start: Start, tmp_path: Path) -> None:
    runtime = await start(models=[{"id": "m", "source": str(tiny.bert_cross(tmp_path / "m"))}])
    error = await refusal(runtime.embed(Embed(model="m", inputs=("a",))))
    assert error.code is Code.UNIMPLEMENTED
    with pytest.raises(PlatformError):
        runtime.generate(Generate(model="m", prompt="a"))


async def test_vectors_are_cut_only_as_the_model_allows(start: Start, tmp_path: Path) -> None:
    plain, matryoshka = tiny.bert(tmp_path / "plain"), tiny.bert(tmp_path / "nested")
    path = matryoshka / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"matryoshka_dimensions": [8, 16]}))
    runtime = await start(
        models=[{"id": "p", "source": str(plain)}, {"id": "n", "source": str(matryoshka)}]
    )
    whole = await runtime.embed(Embed(model="n", inputs=("the fox",)))
    cut = await runtime.embed(Embed(model="n", inputs=("the fox",), dimensions=8))
    expected = whole.vectors[:, :8] / np.linalg.norm(whole.vectors[:, :8])
    np.testing.assert_allclose(cut.vectors, expected, rtol=1e-5)
    same = await runtime.embed(Embed(model="p", inputs=("the fox",), dimensions=32))
    np.testing.assert_array_equal(same.vectors, whole.vectors)
    for model, size in (("p", 8), ("n", 9), ("n", 0), ("n", 64)):
        error = await refusal(runtime.embed(Embed(model=model, inputs=("a",), dimensions=size)))
        assert error.param == "dimensions"
        assert error.code is Code.INVALID_ARGUMENT


async def test_token_ids_embed_as_their_text(start: Start, tmp_path: Path) -> None:
    runtime = await start(models=[{"id": "m", "source": str(tiny.bert(tmp_path / "m"))}])
    tokens = await runtime.tokenize(Tokenize(model="m", prompt="the fox"))
    found = await runtime.embed(Embed(model="m", inputs=("the fox", tokens.ids)))
    np.testing.assert_allclose(found.vectors[0], found.vectors[1], atol=1e-6)
    assert found.token_counts == (4, 4)
    assert await runtime.detokenize(Detokenize(model="m", ids=tokens.ids)) == "the fox"
    empty = await runtime.embed(Embed(model="m", inputs=()))
    assert empty.vectors.shape == (0, 32)
    chat = Chat(turns=(Turn(role="user", content="a"),))
    error = await refusal(runtime.tokenize(Tokenize(model="m", prompt=chat)))
    assert error.code is Code.UNIMPLEMENTED


async def test_tokens_are_left_out_where_the_request_says(start: Start, tmp_path: Path) -> None:
    folder = tiny.bert(tmp_path / "m")
    runtime = await start(models=[{"id": "m", "source": str(folder)}])
    text = "the quick fox un first second"
    theirs = AutoTokenizer.from_pretrained(folder)
    whole = theirs(text, return_offsets_mapping=True)
    for most in (1, 2, 5, 8, 9):
        asked = Tokenize(model="m", prompt=text, truncate_tokens=most)
        left = await runtime.tokenize(asked)
        assert list(left.ids) == whole.input_ids[-most:]
        assert list(left.offsets) == whole.offset_mapping[-most:]
        assert len(left.texts) == len(left.ids)
        right = await runtime.tokenize(replace(asked, truncate_side="right"))
        cut = theirs(text, truncation=True, max_length=max(most, 2)).input_ids
        assert list(right.ids) == cut[:most]
        assert len(right.texts) == len(right.offsets) == len(right.ids)


async def test_many_requests_at_once_get_what_each_would_get_alone(
    minilm: EmbeddingRuntime,
) -> None:
    texts = [" ".join(["word", "another", "sentence"] * (1 + i % 20)) for i in range(64)]
    alone = [(await minilm.embed(Embed(model="m", inputs=(text,)))).vectors[0] for text in texts]
    together = await asyncio.gather(
        *(minilm.embed(Embed(model="m", inputs=(text,))) for text in texts)
    )
    np.testing.assert_allclose([found.vectors[0] for found in together], alone, atol=2e-6)


async def test_an_unknown_name_is_not_found(minilm: EmbeddingRuntime) -> None:
    error = await refusal(minilm.embed(Embed(model="x" * 1000, inputs=("a",))))
    assert error.code is Code.NOT_FOUND
    assert len(error.message) < 300
