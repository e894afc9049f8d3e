"""An OpenVINO model as MLServer's documentation has one written; `mlserver_peer` serves it."""

from __future__ import annotations

import openvino
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OpenVINOModel(MLModel):  # type: ignore[misc]  # mlserver is Any here
    """The model in the file that the settings name, compiled in float32."""

    async def load(self) -> bool:
        """Compile it."""
        self._compiled = openvino.compile_model(
            self.settings.parameters.uri, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Compute the outputs of one request."""
        inputs = {given.name: NumpyCodec.decode_input(given) for given in payload.inputs}
        found = self._compiled(inputs)
        outputs = [NumpyCodec.encode_output(port.any_name, data) for port, data in found.items()]
        return InferenceResponse(model_name=self.name, outputs=outputs)
