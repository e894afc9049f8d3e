"""Models of frameworks that our own environment doesn't hold, made once a session."""

from pathlib import Path

import pytest

from tests.frameworks.environment import made


@pytest.fixture(scope="session")
def tensorflow_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made("tensorflow", tmp_path_factory.mktemp("tensorflow"))


@pytest.fixture(scope="session")
def paddle_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `.pdmodel`, exported as who has a PIR model is told to."""
    return made("paddle", tmp_path_factory.mktemp("paddle"), FLAGS_enable_pir_api="0")


@pytest.fixture(scope="session")
def pir_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made("paddle", tmp_path_factory.mktemp("pir"))
