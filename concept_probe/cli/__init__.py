"""The command line: one verb per arrow of the flow, and `run` for all of them."""

from __future__ import annotations

import typer

from concept_probe.cli import arrows, audits, bench, browse, calibrate, info, run, train_testbed

app = typer.Typer(
    name="concept-probe", no_args_is_help=True, add_completion=False, rich_markup_mode="markdown",
    help="Find a concept inside a generative model, remove it, and audit what is left.\n\n"
         "    concept-probe run camel --output camel-report\n\n    concept-probe info concepts",
)  # fmt: skip
app.command("run")(run.run)
app.command("capture")(arrows.capture)
app.command("train")(arrows.train)
app.command("browse")(browse.browse)
app.command("find")(arrows.find)
app.command("erase")(arrows.erase)
app.command("attack")(audits.attack)
app.command("audit")(audits.audit)
app.command("bench")(bench.bench)
app.command("calibrate")(calibrate.calibrate)
app.command("report")(audits.report)
app.command("info")(info.info)
app.add_typer(train_testbed.testbed_app, name="testbed")

__all__ = ["app"]
