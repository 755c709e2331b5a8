"""The arrow from an edit to the tools of others: export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from concept_probe.cli.common import Model, Output, Threads, plain_errors, writable
from concept_probe.cli.console import err
from concept_probe.cli.shared.drawing import ClipSkip, subject_of


def export_form(
    edit: Annotated[
        Path, typer.Argument(help="Folder of an edit that `erase` wrote, or an adapter or checkpoint of others.")
    ],
    output: Output,
    form: Annotated[str, typer.Option(help="See `concept-probe info forms`.")],
    model: Model = "emoji",
    rank: Annotated[
        int | None,
        typer.Option(min=1, help="Rank of a LoRA's products, at most. Default: whatever holds the whole change."),
    ] = None,
    leave_out: Annotated[
        bool, typer.Option("--leave-out", help="Leave out what the form can't hold, and say how much that is.")
    ] = False,
    clip_skip: ClipSkip = 0,
    threads: Threads = None,
) -> None:
    """Write an edit in a form that other tools load.

    Examples:

    `concept-probe export camel-edit --form kohya --output camel-lora`

    `concept-probe export church.pt --model my-pipeline --form diffusers --rank 16 --output church-lora`
    """
    with plain_errors():
        from concept_probe.erasers.interop import EDIT_FORMS, export_edit, read_edit
        from concept_probe.registry import look_up

        look_up(EDIT_FORMS, form, "form of an edit", "concept-probe info forms")
        writable(output, "an edit" if form == "edit" else "")
        subject = subject_of(model, clip_skip)
        written = export_edit(read_edit(edit, subject), subject, output, form, rank=rank, leave_out=leave_out)
        err.print(", ".join(map(str, written)), highlight=False, soft_wrap=True)
