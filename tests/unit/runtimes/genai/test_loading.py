"""What OpenVINO is told of the settings."""

import pytest

from rayserve_platform.runtimes.genai.loading import properties
from rayserve_platform.settings.app import Model
from rayserve_platform.settings.genai import GenAIApp, GenAIEngine

F32 = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
TWO = {"INFERENCE_NUM_THREADS": 2, "sampler_num_threads": 2}


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ({}, TWO | F32),
        ({"dynamic_quantization": False}, TWO | F32 | {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}),
        ({"precision": "auto"}, TWO),
        ({"device": "GPU.1"}, F32),
        (
            {"cache_dir": "/c", "plugin_config": {"KV_CACHE_PRECISION": "u8", "NUM_STREAMS": 1}},
            TWO | F32 | {"CACHE_DIR": "/c", "KV_CACHE_PRECISION": "u8", "NUM_STREAMS": 1},
        ),
    ],
)
def test_openvino_is_told_what_the_settings_say(engine, expected):
    model = Model(id="m", source="/models/m.gguf")
    settings = GenAIApp(model=model, engine=GenAIEngine(threads=2, **engine))
    assert properties(settings) == expected
