"""Compare methods, with the settings of their authors, to the authors' formulas on the same tiny tensors.

    python benchmarks/parity.py [--tolerance 1e-4]

The formulas are in tests/parity: written from the papers, and where these leave it open from reading the authors' code, prompt
by prompt in float64, and without a call of this project's. Printed is |ours - theirs| / |theirs|: of edits the change of the
weights, of guards what is added, of trained methods their goal, loss or gradient, of choices what was chosen. What the
authors do beside the formula stands in `concept-probe info published`. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))
from concept_probe.erasers import ERASERS
from tests.parity import answers, closed, guards, language, training
from tests.parity.drawn import relative


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest relative difference that agrees")
    tolerance = parser.parse_args().tolerance
    table = Table("method", "what the formula is of", "relative difference", "agrees")
    found: dict[str, float] = {}
    for room in (closed, guards, training, answers, language):
        for name, case in room.CASES.items():
            found[name] = relative(case())
            what = " ".join((case.__doc__ or "").split()).partition(". ")[0]
            table.add_row(name, what, f"{found[name]:.1e}", "yes" if found[name] <= tolerance else "NO")
    Console(width=150).print(table)
    methods = {name.partition(" (")[0] for name in found}
    assert methods <= set(ERASERS)
    worst = max(found, key=lambda name: found[name])
    print(f"{len(found)} formulas of {len(methods)} methods; the largest difference is {worst}'s.")
    agree = sum(x <= tolerance for x in found.values())
    without = sorted(n for n, kind in ERASERS.items() if kind.authors is not None and kind.authors.read_in != "nowhere")
    print(f"Without a formula here: {', '.join(n for n in without if n not in methods)}.")
    print(json.dumps({"compared": len(found), "methods": len(methods), "agree": agree, "max_rel": found[worst]}))
    return agree < len(found)


if __name__ == "__main__":
    sys.exit(main())
