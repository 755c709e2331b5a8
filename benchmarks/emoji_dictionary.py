"""Judge the dictionary of the shipped autoencoder of `emoji`: firing, neighbours, splitting and absorption.

    python benchmarks/emoji_dictionary.py [--concepts camel snake]

On every fourth test sentence; concepts on their fit and test prompts, at the last token of the subject.
"""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

import concept_probe as cp
from concept_probe.find import readouts
from concept_probe.learn import over_text, shipped_saes
from concept_probe.learn.train.recipe import READ_KINDS

CONCEPTS = ["camel", "guitar", "snake", "cat", "pizza"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", nargs="+", default=CONCEPTS)
    concepts = parser.parse_args().concepts
    console = Console(width=160)
    subject = cp.load("emoji")
    sae = over_text(shipped_saes("emoji"))[0]
    held = cp.capture(subject, cp.prompts("emoji", "test")[::4], sites=[sae.site], kinds=READ_KINDS)
    for score in (*cp.feature_density(sae, held).scores, cp.decoder_neighbours(sae).score):
        console.print(str(score))
    table = Table("concept", "F1, first feature", "best F1", "random", "needed", "absorption", "fraction")
    for name in concepts:
        fit, test = readouts(subject, cp.concept(name), sae.site)
        split = cp.splitting(sae, fit, test)
        absorbed = cp.absorption(sae, fit, test, split.main)
        best, chance = max(split.curve.y), max(split.curve.control)
        first = f"{split.curve.y[0]:.2f} [{split.curve.low[0]:.2f}, {split.curve.high[0]:.2f}]"
        cells = [
            f"{s.value:.2f} [{s.low:.2f}, {s.high:.2f}], control {s.control:.2f}"
            for s in (absorbed.full, absorbed.fraction)
        ]
        needed = f"{split.needed.value:.0f} [{split.needed.low:.0f}, {split.needed.high:.0f}]"
        table.add_row(name, first, f"{best:.2f}", f"{chance:.2f}", needed, *cells)
    console.print(table)


if __name__ == "__main__":
    main()
