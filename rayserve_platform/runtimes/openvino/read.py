"""From files to OpenVINO's graph, fitted to what clients send."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import openvino as ov
from openvino.preprocess import ColorFormat, PrePostProcessor, ResizeAlgorithm

from rayserve_platform.core.errors import PlatformError
from rayserve_platform.formats.graph import CONVERTED, Graph
from rayserve_platform.formats.weights import unusable
from rayserve_platform.runtimes.openvino.convert import converted
from rayserve_platform.runtimes.openvino.tensors import ELEMENTS
from rayserve_platform.settings.openvino import OpenVINOModel, given

log = logging.getLogger("rayserve.openvino")

T = TypeVar("T")

COLORS = {"RGB": ColorFormat.RGB, "BGR": ColorFormat.BGR}
RESIZES = {
    "linear": ResizeAlgorithm.RESIZE_LINEAR,
    "cubic": ResizeAlgorithm.RESIZE_CUBIC,
    "nearest": ResizeAlgorithm.RESIZE_NEAREST,
}


@contextmanager
def map_exceptions(message: str) -> Iterator[None]:
    """Raise `message` instead of OpenVINO's errors, whose text holds paths and source lines."""
    try:
        yield
    except PlatformError:
        raise
    except Exception as error:
        log.exception(message)
        raise unusable(f"{message}; the log says why") from error


def read(core: Any, graph: Graph, settings: OpenVINOModel) -> Any:
    """Read a model and fit it to its settings.

    Raises:
        PlatformError: INVALID_ARGUMENT saying what is wrong with the files or the settings.
    """
    path = graph.path
    if graph.format in CONVERTED:
        path = converted(graph, settings.inputs)
    with map_exceptions(f"OpenVINO can't read the model as {graph.format}"):
        model = core.read_model(path)
    _check_stateless(model)
    _name(model.inputs, "input")
    _name(model.outputs, "output")
    _reshape(model, settings)
    return _preprocessed(model, settings)


def _check_stateless(model: Any) -> None:
    if model.get_sinks() or any(op.get_type_name() == "ReadValue" for op in model.get_ops()):
        raise unusable(
            "the model keeps state from one request to the next, and requests of many clients "
            "share it here; export it with its state as inputs and outputs"
        )


def _name(ports: list[Any], what: str) -> None:
    """Name tensors that have no name, by their place."""
    for index, port in enumerate(ports):
        if not port.get_names():
            port.get_tensor().set_names({f"{what}_{index}"})


def _reshape(model: Any, settings: OpenVINOModel) -> None:
    shapes = {
        name: ov.PartialShape([_dim(dim) for dim in shape])
        for name, shape in _by_tensor(model.inputs, given(settings.shape), "shape").items()
    }
    if settings.batch_size is not None:
        size = -1 if settings.batch_size == "auto" else settings.batch_size
        for port in model.inputs:
            shape = shapes.get(port.any_name, port.get_partial_shape())
            if shape.rank.is_dynamic or not len(shape):
                raise unusable(f"batch_size: input '{port.any_name}' has no axis to be the batch's")
            shape[0] = ov.Dimension(size)
            shapes[port.any_name] = shape
    if shapes:
        with map_exceptions("shape, batch_size: the model can't take these shapes"):
            model.reshape(shapes)


def _dim(dim: int | str) -> Any:
    if isinstance(dim, int):
        return ov.Dimension(dim)
    low, _, high = dim.partition(":")
    return ov.Dimension(int(low), int(high))


def _by_tensor(ports: list[Any], options: Mapping[str, T], setting: str) -> dict[str, T]:
    """Return options by the first name of their tensor.

    Raises:
        PlatformError: INVALID_ARGUMENT for an unknown name, and for an option without a name where
            there are several tensors.
    """
    known = {name: port.any_name for port in ports for name in port.get_names()}
    made: dict[str, T] = {}
    for name, option in options.items():
        if name:
            if name not in known:
                listed = ", ".join(sorted(known))
                raise unusable(f"{setting}: the model has no '{name[:200]}'; it has {listed}")
            made[known[name]] = option
        elif len(ports) == 1:
            made[ports[0].any_name] = option
        else:
            names = ", ".join(port.any_name for port in ports)
            raise unusable(f"{setting}: the model has several inputs ({names}): give it by name")
    return made


def _preprocessed(model: Any, settings: OpenVINOModel) -> Any:
    """Build layouts, datatypes and the treatment of pictures into the graph."""
    layouts = given(settings.layout)
    of_inputs = {
        setting: _by_tensor(model.inputs, given(value), setting)
        for setting, value in (
            ("datatype", settings.datatype),
            ("color_format", settings.color_format),
            ("resize", settings.resize),
            ("mean", settings.mean),
            ("scale", settings.scale),
        )
    }
    if not layouts and not any(of_inputs.values()):
        return model
    outputs = {name for port in model.outputs for name in port.get_names()}
    input_layouts = {n: layout for n, layout in layouts.items() if n not in outputs}
    by_input = _by_tensor(model.inputs, input_layouts, "layout")
    with map_exceptions(
        "layout, datatype, color_format, resize, mean, scale: these don't fit the model"
    ):
        steps = PrePostProcessor(model)
        for port in model.inputs:
            name = port.any_name
            options: dict[str, Any] = {key: of[name] for key, of in of_inputs.items() if name in of}
            _prepare(steps.input(name), by_input.get(name, ""), options, port)
        for name, layout in layouts.items():
            if name in outputs:
                client, _, own = layout.partition(":")
                steps.output(name).model().set_layout(ov.Layout(own or client))
                steps.output(name).tensor().set_layout(ov.Layout(client))
        return steps.build()


def _prepare(info: Any, layout: str, options: Mapping[str, Any], port: Any) -> None:
    """Say what one input is for the client and for the model, and how one becomes the other."""
    client, _, own = layout.partition(":")
    if layout:
        info.tensor().set_layout(ov.Layout(client))
        info.model().set_layout(ov.Layout(own or client))
    if "datatype" in options:
        info.tensor().set_element_type(ELEMENTS[options["datatype"]])
    # Order as OpenVINO's own examples have it: numbers, colours, size, then mean and scale.
    steps = info.preprocess()
    arithmetic: list[tuple[str, Callable[[Any], Any]]] = [
        ("mean", steps.mean),
        ("scale", steps.scale),
    ]
    if options.keys() & {"mean", "scale", "resize"}:
        steps.convert_element_type(port.get_element_type())
    if "color_format" in options:
        theirs, _, ours = options["color_format"].partition(":")
        info.tensor().set_color_format(COLORS[theirs])
        steps.convert_color(COLORS[ours])
    if "resize" in options:
        info.tensor().set_spatial_dynamic_shape()
        steps.resize(RESIZES[options["resize"]])
    for setting, step in arithmetic:
        if setting in options:
            value = options[setting]
            step(list(value) if isinstance(value, tuple) else value)
