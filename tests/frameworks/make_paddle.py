"""`.frameworks/paddle/bin/python -I make_paddle.py FOLDER`: a model in PaddlePaddle's format.

Writes `paddle/` and beside it `computed.json`: named inputs and what PaddlePaddle computes of them
after it has read the files again. With FLAGS_enable_pir_api=0 in the environment the model is a
`.pdmodel`, otherwise it is in PIR.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import inference

X = np.random.default_rng(7).normal(size=(5, 4)).astype(np.float32)


class Mlp(paddle.nn.Layer):  # type: ignore[misc]  # paddle is Any here
    """softmax(tanh(x·A + a)·B + b), where the first axis is free."""

    def __init__(self) -> None:
        super().__init__()
        paddle.seed(5)
        self.one = paddle.nn.Linear(4, 8)
        self.two = paddle.nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        return paddle.nn.functional.softmax(self.two(paddle.tanh(self.one(x))))


def main(folder: Path) -> None:
    model = Mlp()
    model.eval()
    free = paddle.static.InputSpec([-1, 4], "float32", "x")
    paddle.jit.save(model, str(folder / "paddle/model"), input_spec=[free])
    files = [str(path) for path in sorted((folder / "paddle").glob("model.*"))]
    [program] = [path for path in files if path.endswith((".pdmodel", ".json"))]
    [weights] = [path for path in files if path.endswith(".pdiparams")]
    predictor = inference.create_predictor(inference.Config(program, weights))
    [given], [wanted] = predictor.get_input_names(), predictor.get_output_names()
    predictor.get_input_handle(given).copy_from_cpu(X)
    predictor.run()
    output = predictor.get_output_handle(wanted).copy_to_cpu()
    told = {"paddle": {"inputs": {given: X.tolist()}, "outputs": {wanted: output.tolist()}}}
    (folder / "computed.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
