"""sentence-transformers directories: what stands around the transformer, read without torch.

A bi-encoder is a chain of modules (`modules.json`), a cross-encoder a Hugging Face classifier with
one label. The reading follows sentence-transformers 3.4, which Caikit runs, as far as Caikit uses
it: prompts and `do_lower_case` have no effect, since Caikit calls the tokenizer by itself.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayserve_platform.formats.weights import (
    graph_file,
    inside,
    read_json,
    read_json_value,
    unusable,
    weight_files,
)

LENGTH_FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Where a Transformer module keeps `max_seq_length` (`models/Transformer.py`, `load`)."""

POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Keys of a Pooling module's config, in the order in which several modes are joined
(`models/Pooling.py`, `forward`)."""

ACTIVATIONS = ("Identity", "Sigmoid", "Tanh", "ReLU", "GELU")
"""Activation functions of `torch.nn` that a Dense module or a cross-encoder may name."""

OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "xlm-roberta-xl")
"""Model types whose positions begin behind `pad_token_id` (transformers,
`create_position_ids_from_input_ids`), so that fewer tokens fit than there are positions."""

DEFAULT_LENGTH = 512
"""For a model that names no length at all, as BERT's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """A fully connected layer behind the pooling."""

    directory: Path
    in_features: int
    out_features: int
    bias: bool
    activation: str


@dataclass(frozen=True, slots=True)
class Normalize:
    """Scales each vector to length one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """What to build a model from. Both kinds have a transformer, a tokenizer and a length.

    Args:
        transformer: directory of the Hugging Face model and its tokenizer.
        files: everything that decides on the result, for a cache's key.
        max_tokens: longest input, special tokens included.
        pooling: modes whose vectors are joined; empty for a cross-encoder.
        head: what follows the pooling, in order.
        activation: of a cross-encoder's score; empty for a bi-encoder.
        has_segments: whether the transformer tells two texts of a pair apart.
        dimensions: lengths that vectors may be cut to.
        graph: OpenVINO IR of the transformer, where there are no weights but those.
    """

    transformer: Path
    files: tuple[Path, ...]
    max_tokens: int
    pooling: tuple[str, ...] = ()
    head: tuple[Dense | Normalize, ...] = ()
    activation: str = ""
    has_segments: bool = False
    dimensions: range | tuple[int, ...] = ()
    graph: Path | None = None

    @property
    def cross(self) -> bool:
        """Whether it scores pairs of texts, instead of giving each text a vector."""
        return bool(self.activation)


def read_bi_encoder(directory: Path, *, allow_pickle: bool = False) -> Encoder:
    """Read a bi-encoder; a plain Hugging Face directory gets mean pooling, as there.

    Raises:
        PlatformError: INVALID_ARGUMENT if a file is missing, a module is of an unknown kind, the
            weights are pickled and that is not allowed, or a path leaves the directory.
    """
    listed = directory / "modules.json"
    modules = _modules(listed) if listed.is_file() else [("Transformer", "")]
    transformer = _transformer(directory, modules)
    graph = graph_file(transformer)
    if graph is not None:
        weights = [graph, graph.with_suffix(".bin")]
    else:
        weights = weight_files(transformer, allow_pickle=allow_pickle)
    files = [transformer / "config.json", *weights]
    pooling: tuple[str, ...] = ("mean",) if len(modules) == 1 else ()
    head: list[Dense | Normalize] = []
    for kind, path in modules[1:]:
        folder = inside(directory, path, "modules.json: path")
        match kind:
            case "Pooling" if not pooling:
                pooling = _pooling(folder / "config.json")
            case "Dense" if pooling:
                head.append(_dense(folder))
                files += weight_files(folder, allow_pickle=allow_pickle, what="the Dense module")
            case "Normalize" if pooling:
                head.append(Normalize())
            case "Dropout":  # does nothing when a model is used
                pass
            case _:
                raise unusable(f"modules.json: a module '{kind}' at this place is not supported")
    if not pooling:
        raise unusable("modules.json: there is no Pooling module")
    config = read_json(transformer / "config.json")
    return Encoder(
        transformer=transformer,
        files=tuple(files),
        max_tokens=_max_tokens(transformer, config, _own_length(transformer, directory)),
        pooling=pooling,
        head=tuple(head),
        dimensions=_dimensions(config),
        graph=graph,
    )


def read_cross_encoder(directory: Path, *, allow_pickle: bool = False) -> Encoder:
    """Read a cross-encoder: a Hugging Face directory of a classifier with one label.

    Raises:
        PlatformError: as `read_bi_encoder`; INVALID_ARGUMENT if the model has no such classifier.
    """
    config = read_json(directory / "config.json")
    if not is_classifier(config):
        raise unusable("config.json: a cross-encoder is a '…ForSequenceClassification'")
    if label_count(config) != 1:
        raise unusable(
            f"config.json: this classifier has {label_count(config)} labels; a cross-encoder has "
            "one, its score"
        )
    weights = weight_files(directory, allow_pickle=allow_pickle)
    return Encoder(
        transformer=directory,
        files=(directory / "config.json", *weights),
        max_tokens=_max_tokens(directory, config, None),
        activation=_cross_activation(config),
        has_segments=int(config.get("type_vocab_size") or 0) > 1,
    )


def is_classifier(config: dict[str, Any]) -> bool:
    """Whether a Hugging Face config is that of a classifier of texts."""
    names = config.get("architectures") or ()
    return any(str(name).endswith("ForSequenceClassification") for name in names)


def label_count(config: dict[str, Any]) -> int:
    """Return the number of labels; transformers writes them as `id2label` and assumes two."""
    labels = config.get("id2label")
    return len(labels) if isinstance(labels, dict) else int(config.get("num_labels", 2))


def _modules(path: Path) -> list[tuple[str, str]]:
    """Return (kind, path) of each module in the order they run."""
    content = read_json_value(path)
    entries = content if isinstance(content, list) else []
    found: list[tuple[str, str]] = []
    for entry in entries:
        kind = entry.get("type") if isinstance(entry, dict) else None
        if not isinstance(kind, str) or not isinstance(entry.get("path"), str):
            raise unusable("modules.json: every module needs a 'type' and a 'path'")
        if not kind.startswith("sentence_transformers."):
            raise unusable(
                f"modules.json: '{kind[:100]}' is code of the model's own; not supported"
            )
        found.append((kind.rpartition(".")[2], entry["path"]))
    if not found:
        raise unusable("modules.json lists no modules")
    return found


def _transformer(directory: Path, modules: list[tuple[str, str]]) -> Path:
    kind, path = modules[0]
    if kind != "Transformer":
        raise unusable(f"modules.json: begins with '{kind}'; only a Transformer is supported")
    return inside(directory, path, "modules.json: path")


def _pooling(path: Path) -> tuple[str, ...]:
    config = read_json(path)
    modes = tuple(mode for key, mode in POOLING.items() if config.get(key))
    if modes:
        return modes
    if config.get("pooling_mode") in POOLING.values():  # as newer versions write it
        return (str(config["pooling_mode"]),)
    # The class's own default, where the file names none (`models/Pooling.py`, `__init__`).
    if "pooling_mode_mean_tokens" not in config and "pooling_mode" not in config:
        return ("mean",)
    raise unusable(f"{path.parent.name}/{path.name}: names no pooling mode that is known")


def _dense(folder: Path) -> Dense:
    config = read_json(folder / "config.json")
    try:
        return Dense(
            directory=folder,
            in_features=int(config["in_features"]),
            out_features=int(config["out_features"]),
            bias=bool(config.get("bias", True)),
            activation=activation(config.get("activation_function", "torch.nn.Tanh")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise unusable(f"{folder.name}/config.json: in_features, out_features: missing") from error


def activation(name: Any) -> str:
    """Return the class name of an activation function that is written as a dotted path."""
    last = str(name).rpartition(".")[2]
    if last not in ACTIVATIONS:
        raise unusable(f"activation function '{str(name)[:100]}' is not supported")
    return last


def _cross_activation(config: dict[str, Any]) -> str:
    """Return what a score passes through; a classifier with one label has Sigmoid by default."""
    newer = config.get("sentence_transformers")
    named = config.get("sbert_ce_default_activation_function")
    if not named and isinstance(newer, dict):
        named = newer.get("activation_fn")
    return activation(named or "torch.nn.Sigmoid")


def _own_length(*directories: Path) -> int | None:
    """Return the `max_seq_length` that the author of a model has set."""
    for directory in directories:
        for name in LENGTH_FILES:
            if (directory / name).is_file():
                length = read_json(directory / name).get("max_seq_length")
                if isinstance(length, int) and length > 0:
                    return length
    return None


def _max_tokens(directory: Path, config: dict[str, Any], own: int | None) -> int:
    """Return the longest input: the author's number or the tokenizer's, and what there is room for.

    More tokens than the transformer has positions would fail in it.
    """
    limits = [] if own is None else [own]
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and positions > 0:
        offset = 0
        if config.get("model_type") in OFFSET_POSITIONS:
            offset = int(config.get("pad_token_id") or 0) + 1
        limits.append(positions - offset)
    path = directory / "tokenizer_config.json"
    length = read_json(path).get("model_max_length") if path.is_file() else None
    # A tokenizer without a limit says 1e30.
    if own is None and isinstance(length, int | float) and 0 < length < 1e9:
        limits.append(int(length))
    return min(limits, default=DEFAULT_LENGTH)


def _dimensions(config: dict[str, Any]) -> range | tuple[int, ...]:
    """Return the lengths that a model was trained to be cut to (`matryoshka_dimensions`)."""
    sizes = config.get("matryoshka_dimensions")
    if isinstance(sizes, list):
        return tuple(int(size) for size in sizes)
    size = config.get("hidden_size")
    return range(1, size + 1) if config.get("is_matryoshka") and isinstance(size, int) else ()
