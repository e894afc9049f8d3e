"""Options and parameters of the TGIS protocol."""

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import json_format

from rayserve_platform.pb import generation_pb2 as pb
from rayserve_platform.protocols.tgis.options import Options
from rayserve_platform.serving.faces import tgis_options
from rayserve_platform.settings.app import Ingress


@pytest.fixture
def make_options() -> Callable[..., Options]:
    """Makes options of the settings of `ingress.tgis`."""

    def make(**tgis: Any) -> Options:
        return tgis_options(Ingress.model_validate({"tgis": tgis}))

    return make


@pytest.fixture
def parameters() -> Callable[..., Any]:
    """Makes `Parameters` of JSON fields."""

    def make(**fields: Any) -> Any:
        return json_format.ParseDict(fields, pb.Parameters())

    return make
