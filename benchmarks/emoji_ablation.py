"""How number of features, strength and the error term matter when an object's features are ablated in `emoji`.

    python benchmarks/emoji_ablation.py [camel]

Pictures of the select split, 24 a side; the shipped autoencoder of the text stream.
"""

from __future__ import annotations

import argparse
import json

from rich.console import Console
from rich.table import Table

import concept_probe as cp
from concept_probe import detect
from concept_probe.erase import choose_features
from concept_probe.learn import shipped_saes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("concept", nargs="?", default="camel")
    name = parser.parse_args().concept
    subject = cp.load("emoji")
    saes = [sae for sae in shipped_saes("emoji") if sae.site.component == "text_encoder"]
    # No detection rate is below 0, so that every candidate is tried.
    choice = choose_features(
        subject, cp.concept(name), saes, recogniser=detect.recogniser("emoji"), errors=("keep", "drop"), goal=-1.0
    )
    table = Table("candidate", f"{name} drawn", "others kept", title="select split, 24 pictures a side")
    for tried in choice.tried:
        table.add_row(tried.name, f"{tried.gone.value:.2f}", f"{tried.retained():.2f}")
    Console().print(table)
    print(json.dumps({t.name: [t.gone.value, t.retained()] for t in choice.tried}))


if __name__ == "__main__":
    main()
