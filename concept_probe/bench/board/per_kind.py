"""From rows without attacks to a table: share of right answers per kind of prompt, before and after, by eraser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from concept_probe.bench.sweep.grid import CONTROLS, NONE
from concept_probe.bench.sweep.store import SweepRow

ASKED_FOR = ("target", "paraphrases", "implicit", "neighbours", "unrelated")
GONE_BELOW = 0.2
"""A concept counts as erased where at most this share of answers to its target prompts still shows it."""
KEPT_ABOVE = 0.9
"""And as kept beside that where this share of what was right before is right after, of neighbours and unrelated."""


def measured_without_attack(rows: Sequence[SweepRow]) -> list[SweepRow]:
    """The finished rows of erasers that no attack was run on."""
    return [r for r in rows if r.attack == NONE and r.status == "done" and r.eraser not in CONTROLS]


def share(counts: Mapping[str, Sequence[int]], kind: str) -> float:
    """Hits / n of a kind of prompt."""
    hits, n = counts[kind]
    return hits / n


def by_concept(rows: Sequence[SweepRow]) -> Table:
    """One line per eraser and concept."""
    table = Table("eraser", "concept", *ASKED_FOR, "seconds", title="share of right answers, before > after")
    for row in measured_without_attack(rows):
        v = row.values
        cells = (f"{share(v['before'], k):.2f} > {share(v['after'], k):.2f}" for k in ASKED_FOR)
        table.add_row(row.eraser, row.concept, *cells, f"{v['fit']['seconds']:.0f}")
    return table


def by_eraser(rows: Sequence[SweepRow]) -> tuple[Table, dict[str, Any]]:
    """One line per eraser, means over concepts; and the figures, by eraser."""
    title = "share of right answers, before > after, mean over concepts"
    table = Table("eraser", *ASKED_FOR, f"concepts at <= {GONE_BELOW}", f"kept >= {KEPT_ABOVE} too", title=title)
    done, out = measured_without_attack(rows), {}
    for eraser in dict.fromkeys(r.eraser for r in done):
        of = [r.values for r in done if r.eraser == eraser]
        mean = {w: {k: sum(share(v[w], k) for v in of) / len(of) for k in ASKED_FOR} for w in ("before", "after")}
        gone = [v for v in of if share(v["after"], "target") <= GONE_BELOW]
        both = [v for v in gone if all(_kept(v, k) for k in ("neighbours", "unrelated"))]
        cells = (f"{mean['before'][k]:.2f} > {mean['after'][k]:.2f}" for k in ASKED_FOR)
        table.add_row(eraser, *cells, f"{len(gone)} of {len(of)}", f"{len(both)} of {len(of)}")
        after, before = mean["after"], mean["before"]
        out[eraser] = {
            "before": before["target"],
            "after": after["target"],
            **{k: after[k] for k in ("paraphrases", "implicit")},
            **{k: after[k] / max(before[k], 1e-9) for k in ("neighbours", "unrelated")},
            "concepts_erased_and_kept": len(both),
            "concepts": len(of),
        }
    return table, out


def _kept(values: Mapping[str, Any], kind: str) -> bool:
    return share(values["after"], kind) >= KEPT_ABOVE * share(values["before"], kind)
