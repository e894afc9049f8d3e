"""`.frameworks/tensorflow/bin/python -I make_tensorflow.py FOLDER`: one model in each format.

Writes `saved_model/`, `frozen.pb`, `frozen.pbtxt` and `model.tflite`, and `computed.json`: of each,
named inputs and what TensorFlow computes of them after it has read the file again.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

X = np.random.default_rng(7).normal(size=(5, 4)).astype(np.float32)


class Mlp(tf.Module):  # type: ignore[misc]  # tensorflow is Any here
    """softmax(tanh(x·A + a)·B), where the first axis is free."""

    def __init__(self) -> None:
        super().__init__()
        generator = np.random.default_rng(5)
        for name, shape in {"A": (4, 8), "a": (8,), "B": (8, 3)}.items():
            weights = generator.normal(size=shape).astype(np.float32)
            setattr(self, name, tf.Variable(weights))

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def __call__(self, x: Any) -> dict[str, Any]:
        return {"probabilities": tf.nn.softmax(tf.tanh(x @ self.A + self.a) @ self.B)}


def saved_model(model: Mlp, path: Path) -> tuple[str, str, Any]:
    """Write it; returns the names of its input and output, and the output of `X`."""
    tf.saved_model.save(model, str(path), signatures=model.__call__)
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    [(name, output)] = signature(x=tf.constant(X)).items()
    return "x", name, output.numpy()


def frozen(model: Mlp, path: Path, *, as_text: bool) -> tuple[str, str, Any]:
    """The same for a graph with its weights inside."""
    made = convert_variables_to_constants_v2(model.__call__.get_concrete_function())
    tf.io.write_graph(made.graph, str(path.parent), path.name, as_text=as_text)
    graph = tf.compat.v1.GraphDef()
    if as_text:
        text_format.Parse(path.read_text(), graph)
    else:
        graph.ParseFromString(path.read_bytes())
    read = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), [])
    [given], [wanted] = made.inputs, made.outputs
    pruned = read.prune(
        read.graph.as_graph_element(given.name), read.graph.as_graph_element(wanted.name)
    )
    return given.name, wanted.name, pruned(tf.constant(X)).numpy()


def lite(model: Mlp, path: Path) -> tuple[str, str, Any]:
    """The same for TensorFlow Lite."""
    function = model.__call__.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], model)
    path.write_bytes(converter.convert())
    interpreter = tf.lite.Interpreter(model_path=str(path))
    [given], [wanted] = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], X.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], X)
    interpreter.invoke()
    return given["name"], wanted["name"], interpreter.get_tensor(wanted["index"])


def main(folder: Path) -> None:
    model = Mlp()
    computed = {
        "saved_model": saved_model(model, folder / "saved_model"),
        "frozen.pb": frozen(model, folder / "frozen.pb", as_text=False),
        "frozen.pbtxt": frozen(model, folder / "frozen.pbtxt", as_text=True),
        "model.tflite": lite(model, folder / "model.tflite"),
    }
    told = {
        place: {"inputs": {x: X.tolist()}, "outputs": {y: output.tolist()}}
        for place, (x, y, output) in computed.items()
    }
    (folder / "computed.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
