import pytest
from pydantic import ValidationError

from rayserve_platform.settings.model import explain
from rayserve_platform.settings.torch import TorchApp

MODEL = {"id": "m", "source": "/models/m"}


def problems(**args):
    with pytest.raises(ValidationError) as caught:
        TorchApp.model_validate({"model": MODEL} | args)
    return explain(caught.value)


def test_a_model_with_a_source_is_all_it_takes():
    app = TorchApp.model_validate({"model": MODEL})
    assert (app.engine.dtype, app.engine.max_model_len) == ("auto", None)


def test_a_model_without_a_source_is_refused():
    assert "model.source: required" in problems(model={"id": "m"})[0]


def test_more_than_one_gpu_is_refused():
    assert "more than the one GPU a replica uses" in problems(placement={"num_gpus": 2})[0]


def test_half_precision_that_cpus_do_not_have_is_refused_there():
    assert "CPUs have 'bfloat16'" in problems(engine={"dtype": "float16"})[0]
    gpu = {"engine": {"dtype": "float16"}, "placement": {"num_gpus": 0.5}}
    assert TorchApp.model_validate({"model": MODEL} | gpu).engine.dtype == "float16"


def test_an_unknown_key_names_the_nearest():
    assert "did you mean 'max_model_len'" in problems(engine={"max_model_length": 1})[0]
