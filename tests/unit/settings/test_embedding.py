"""What the args of an embedding application may say."""

from typing import Any

import pytest
from pydantic import ValidationError

from rayserve_platform.settings.embedding import EmbeddingApp
from rayserve_platform.settings.model import explain

MODEL = {"id": "m", "source": "/models/m"}


def problems(**content: Any) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        EmbeddingApp.model_validate(content)
    return explain(caught.value)


def test_a_models_directory_is_enough() -> None:
    app = EmbeddingApp.model_validate({"models_dir": "/mnt/models"})
    assert app.listed_models() == ()
    assert app.topology == "colocated"
    assert app.ingress.protocols == ("caikit", "openai")


def test_other_settings_of_the_ingress_keep_its_protocols() -> None:
    app = EmbeddingApp.model_validate({"models": [MODEL], "ingress": {"docs": False}})
    assert app.ingress.protocols == ("caikit", "openai")
    assert [model.id for model in app.listed_models()] == ["m"]
    one = EmbeddingApp.model_validate({"models": [MODEL], "ingress": {"protocols": ["openai"]}})
    assert one.ingress.protocols == ("openai",)


@pytest.mark.parametrize(
    ("placement", "engine", "device", "backend"),
    [
        ({}, {}, "cpu", "openvino"),
        ({"num_gpus": 1}, {}, "cuda", "torch"),
        ({"num_gpus": 0.5}, {"backend": "torch"}, "cuda", "torch"),
        ({}, {"backend": "torch"}, "cpu", "torch"),
        ({"num_gpus": 1}, {"device": "cpu"}, "cpu", "openvino"),
    ],
)
def test_the_backend_follows_the_placement(
    placement: Any, engine: Any, device: str, backend: str
) -> None:
    app = EmbeddingApp.model_validate(
        {"models": [MODEL], "placement": placement, "embedding": engine}
    )
    assert (app.device, app.backend) == (device, backend)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "name at least one of 'models' and 'models_dir'"),
        ({"models": [{"id": "m"}]}, "models: 'm' needs a source"),
        ({"models": [MODEL, MODEL]}, "the name 'm' is given twice"),
        ({"models": [MODEL | {"aliases": ["m"]}]}, "the name 'm' is given twice"),
        ({"placement": {"num_gpus": 2}}, "placement.num_gpus: 2.0 is more than the one GPU"),
        ({"embedding": {"device": "cuda"}}, "'cuda' needs placement.num_gpus"),
        (
            {"placement": {"num_gpus": 1}, "embedding": {"backend": "openvino"}},
            "'openvino' runs on CPUs",
        ),
        ({"embedding": {"precision": "float16"}}, "'float16' needs a GPU"),
        (
            {"embedding": {"precision": "int8", "backend": "torch"}},
            "'int8' needs the backend 'openvino'",
        ),
        ({"embedding": {"max_batch_tokens": 0}}, "greater than or equal to 1"),
        ({"embedding": {"treads": 2}}, "unknown setting 'treads'; did you mean 'threads'?"),
        ({"model_dir": "x"}, "did you mean 'models_dir'?"),
    ],
)
def test_what_cannot_be_is_refused_in_words(content: Any, message: str) -> None:
    given = content if not content or "models" in content else {"models": [MODEL], **content}
    assert message in "\n".join(problems(**given))
