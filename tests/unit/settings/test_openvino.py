"""What the args of the OpenVINO application may say."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rayserve_platform.settings.app import App, Model
from rayserve_platform.settings.model import explain
from rayserve_platform.settings.openvino import (
    OpenVINOApp,
    OpenVINOEngine,
    OpenVINOModel,
    VersionPolicy,
)

README = Path(__file__).parents[3] / "configs/openvino/README.md"


def model(**args: Any) -> OpenVINOApp:
    return OpenVINOApp.model_validate({"models": [{"id": "m", "source": "/m", **args}]})


@pytest.mark.parametrize(
    ("written", "count", "specific"),
    [
        ({}, 1, ()),
        ({"latest": 2}, 2, ()),
        ({"latest": {"num_versions": 2}}, 2, ()),
        ({"latest": {}}, 1, ()),
        ({"specific": [1, 3]}, 1, (1, 3)),
        ({"specific": {"versions": [1, 3]}}, 1, (1, 3)),
        ({"all": True}, None, ()),
        ({"all": {}}, None, ()),
    ],
)
def test_a_version_policy_is_read_in_ovms_form_too(
    written: dict[str, Any], count: int | None, specific: tuple[int, ...]
) -> None:
    policy = VersionPolicy.model_validate(written)
    assert (policy.count, policy.specific) == (count, specific)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"version_policy": {"latest": 1, "all": True}}, "one of"),
        ({"version_policy": {"specific": [0]}}, "count from 1"),
        ({"version_policy": {"newest": 1}}, "unknown setting 'newest'"),
        ({"version_policy": {"latest": {"num_versions": 2, "foo": 1}}}, "unknown setting 'foo'"),
        ({"version_policy": {"specific": {"version": [1]}}}, "did you mean 'versions'"),
        ({"version_policy": {"all": {"latest": 1}}}, "unknown setting 'latest'"),
        ({"version_policy": {"specific": {}}}, "versions"),
        ({"batch_size": 0}, "at least 1"),
        ({"shape": [-5, 4]}, "-1"),
        ({"shape": {"x": ["8:1"]}}, "8:1"),
        ({"shape": ["1:99999999999999999999"]}, "99999999999999999999"),
        ({"shape": [2**63]}, "9223372036854775808"),
        ({"inputs": {"x": {"shape": [-2]}}}, "-1"),
        ({"inputs": {"x": {"shape": ["2:1"]}}}, "2:1"),
        ({"layout": "NHWC:NCH"}, "no layout"),
        ({"layout": {"x": "nchw"}}, "no layout"),
        ({"layout": "NNHW"}, "no layout"),
        ({"color_format": "BGR"}, "neither RGB:BGR"),
        ({"scale": [1.0, 0.0]}, "must not be 0"),
        ({"shape": {"x": ["1:"]}}, "shape"),
        ({"datatype": "FLOAT"}, "datatype"),
        ({"inputs": {"x": {"datatype": "FP32"}}}, "shape"),
        ({"openvino": {"device": "CPU; rm"}}, "device"),
        ({"openvino": {"max_batchsize": 3}}, "did you mean 'max_batch_size'"),
    ],
)
def test_what_makes_no_sense_is_refused(args: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        model(**args)
    assert words in " ".join(explain(caught.value))


def test_sizes_are_whole_numbers_any_or_a_range() -> None:
    for shape in ((-1, 0, 4, "1:8", "8:8"), ("0:1",)):
        (one,) = model(shape=list(shape)).models
        assert one.shape == shape


def test_models_need_a_place_and_names_of_their_own() -> None:
    for args, words in (
        ({}, "models_dir"),
        ({"models": [{"id": "m"}]}, "source"),
        ({"models": [{"id": "m", "source": "/m"}, {"id": "m", "source": "/n"}]}, "given twice"),
    ):
        with pytest.raises(ValidationError, match=words):
            OpenVINOApp.model_validate(args)


def test_a_model_is_colocated_and_computes_with_its_cpus() -> None:
    app = OpenVINOApp.model_validate({"models_dir": "/models", "placement": {"num_cpus": 3}})
    assert (app.topology, app.threads, app.poll_s) == ("colocated", 3, 1.0)
    assert [m.id for m in model(shape=[-1, "1:8"]).listed_models()] == ["m"]
    assert app.ingress.protocols == ("kserve",)


def test_only_models_of_packages_are_made_before_the_start() -> None:
    models = [{"id": s[:1], "source": s} for s in ("/m.onnx", "file:///n", "package://p/model")]
    app = OpenVINOApp.model_validate({"models": models})
    assert app.made_sources() == ("package://p/model",)


def test_the_config_s_readme_names_every_setting() -> None:
    cells = re.findall(r"^\| (`[^|]*) \|", README.read_text(), re.MULTILINE)
    # "`models[].mean`, `.scale`": the second is short for a key beside the first.
    named = {name.rpartition(".")[2] for cell in cells for name in re.findall(r"`([^`]*)`", cell)}
    for settings, inherited in ((OpenVINOEngine, {}), (OpenVINOModel, Model.model_fields)):
        missing = settings.model_fields.keys() - inherited.keys() - named
        assert not missing, settings
    assert not OpenVINOApp.model_fields.keys() - App.model_fields.keys() - named - {"openvino"}
