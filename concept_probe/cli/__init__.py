"""The command line: one verb per arrow of the flow, and `run` for all of them."""

from __future__ import annotations

from typing import Annotated

import typer

from concept_probe.cli import (
    arrows,
    attention,
    attribution,
    audits,
    bench,
    browse,
    calibrate,
    concepts,
    exports,
    info,
    reports,
    run,
    train_testbed,
)
from concept_probe.cli.command_line import Verb

app = typer.Typer(
    name="concept-probe", no_args_is_help=True, add_completion=False, rich_markup_mode="markdown",
    help="Find a concept inside a generative model, remove it, and audit what is left.\n\n"
         "    concept-probe run camel --output camel-report\n\n    concept-probe info concepts",
)  # fmt: skip


def _say_versions(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        from concept_probe.cli.console import out

        for name in ("concept-probe", "torch", "diffusers", "transformers"):
            out.print(f"{name} {version(name)}", highlight=False, markup=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Which version this is, and of what it builds on.", callback=_say_versions, is_eager=True
        ),
    ] = False,
) -> None:
    pass


app.command("run", cls=Verb)(run.run)
app.command("capture", cls=Verb)(arrows.capture)
app.command("train", cls=Verb)(arrows.train)
app.command("browse", cls=Verb)(browse.browse)
app.command("attention", cls=Verb)(attention.attention)
app.command("find", cls=Verb)(arrows.find)
app.command("attribute", cls=Verb)(attribution.attribute)
app.command("erase", cls=Verb)(arrows.erase)
app.command("export", cls=Verb)(exports.export_form)
app.command("attack", cls=Verb)(audits.attack)
app.command("audit", cls=Verb)(audits.audit)
app.command("bench", cls=Verb)(bench.bench)
app.command("calibrate", cls=Verb)(calibrate.calibrate)
app.command("verify", cls=Verb)(reports.verify)
app.command("report", cls=Verb)(reports.report)
app.command("info", cls=Verb)(info.info)
app.add_typer(concepts.concept_app, name="concept")
app.add_typer(train_testbed.testbed_app, name="testbed")

__all__ = ["app"]
