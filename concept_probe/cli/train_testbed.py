"""The recipe of the embedded models, from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from concept_probe.cli.common import Threads, plain_errors, writable
from concept_probe.cli.console import err

testbed_app = typer.Typer(no_args_is_help=True, help="Train or look at the embedded models.")


@testbed_app.command("train")
def train_models(
    folder: Annotated[Path, typer.Option("--work", help="Folder for checkpoints; the same one resumes.")] = Path(
        "runs/testbed"
    ),
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the finished models.")] = Path(
        "runs/weights"
    ),
    threads: Threads = None,
) -> None:
    """Train the embedded models from the icons; can be stopped and started again at any time.

    Example: `concept-probe testbed train --work runs/testbed --output runs/weights`
    """
    with plain_errors():
        from concept_probe.testbed.train import train_embedded_models

        _train(train_embedded_models, folder, output, "models")


@testbed_app.command("train-flow")
def train_flow(
    folder: Annotated[Path, typer.Option("--work", help="Folder for checkpoints; the same one resumes.")] = Path(
        "runs/testbed-flow"
    ),
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the finished transformers.")] = Path(
        "runs/weights"
    ),
    threads: Threads = None,
) -> None:
    """Train the rectified-flow transformer and its twin on the parts of `emoji`; can be stopped and started again.

    Example: `concept-probe testbed train-flow --work runs/testbed-flow --output runs/weights`
    """
    with plain_errors():
        from concept_probe.testbed.flow.models import train_flow_models

        _train(train_flow_models, folder, output, "transformers")


def _train(recipe: Callable[[Path, Path], Any], folder: Path, output: Path, what: str) -> None:
    for place in (folder, output):
        writable(place)
    recipe(folder, output)
    err.print(f"{what} in {output}")


@testbed_app.command("show")
def show_icons(
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG file to write.")] = Path("icons.png"),
    every: Annotated[int, typer.Option(min=1, help="Every so many objects.")] = 8,
) -> None:
    """Write some of the icons that the models were trained on as one picture.

    Example: `concept-probe testbed show --output icons.png`
    """
    with plain_errors():
        import torch
        from PIL import Image

        from concept_probe.testbed.icons import icons

        writable(output.parent, files=(output.name,))
        if output.suffix.lower() not in Image.registered_extensions():
            raise ValueError(
                f"--output {output}: {output.suffix or 'no ending'} names no format of pictures; let it end in .png"
            )
        rows = [torch.cat(list(style[::every]), -1) for style in icons()]
        sheet = ((torch.cat(rows, -2) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(sheet).save(output)
        err.print(f"icons in {output}")
