"""From rows with attacks to a table: what each attack brings back from each eraser, beside its own control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from concept_probe.bench.sweep.grid import CONTROLS, NONE
from concept_probe.bench.sweep.store import SweepRow


def attack_table(rows: Sequence[SweepRow]) -> tuple[Table, dict[str, Any]]:
    """One line per attack and one column per eraser, means over concepts; and the figures, by attack and eraser."""
    done = [r for r in rows if r.attack != NONE and r.status == "done"]
    met = dict.fromkeys(r.eraser for r in done)
    erasers = [*(name for name in CONTROLS if name in met), *(n for n in met if n not in CONTROLS)]
    title = "highest rate along the curve, own control in brackets, mean over concepts"
    table, out = Table("attack", *erasers, "seconds", title=title), {}
    for attack in dict.fromkeys(r.attack for r in done):
        cells, out[attack] = [], {}
        for eraser in erasers:
            of = [r.values for r in done if r.attack == attack and r.eraser == eraser]
            if not of:
                cells.append("")
                continue
            rate = sum(max(value for _, value in v["curve"]) for v in of) / len(of)
            control = sum(v["control"][0] / v["control"][1] if "control" in v else 0.0 for v in of) / len(of)
            out[attack][eraser] = {"rate": rate, "control": control, "above": rate - control}
            cells.append(f"{rate:.2f} ({control:.2f})")
        seconds = [r.values["spent"]["seconds"] for r in done if r.attack == attack]
        out[attack]["seconds"] = sum(seconds) / len(seconds)
        table.add_row(attack, *cells, f"{out[attack]['seconds']:.0f}")
    return table, out
