"""How many of sixty names become whole concepts?

    python benchmarks/kits.py [--model emoji]

The names stand below, and were chosen before any of them was tried. A kit counts as whole where nothing is wrong with it
that `concept-probe concept check` looks for without a model; as one whose words are known where the model's tokenizer
has no word in it that it doesn't know. Needs the extra `kits`. Ends with one line of JSON: `kits` are those that are
whole, the others how many of the sixty have splits that share no sentence, subjects that stand in their sentences, and
known words.
"""

from __future__ import annotations

import argparse
import json

from rich.console import Console
from rich.table import Table

import concept_probe as cp
from concept_probe.concepts.kits import KIT_KINDS, check_kit, new_kit
from concept_probe.concepts.kits.check import CHECKS

NAMES = {
    "object": (
        "umbrella", "bicycle", "teapot", "violin", "lighthouse", "typewriter", "helicopter", "wheelbarrow", "sewing machine",
        "grand piano", "traffic light", "fire engine", "rocking chair", "coffee mug", "hot-air balloon", "windmill",
        "pineapple", "cheeseburger", "sunflower", "scissors",
        "golden retriever", "Siamese cat", "zebra", "penguin", "tarantula", "goldfish", "king cobra", "hummingbird",
        "polar bear", "lobster", "bald eagle", "kangaroo", "monarch butterfly", "sea turtle", "donkey",
    ),
    "style": (
        "Van Gogh", "Claude Monet", "Pablo Picasso", "Salvador Dali", "Rembrandt", "Katsushika Hokusai", "pixel art",
        "stained glass", "origami", "comic book",
    ),
    "place": ("the Eiffel Tower", "Venice", "Mount Fuji", "Niagara Falls", "Stonehenge", "Berlin", "Lake Victoria", "Prague"),
    "person": (
        "Albert Einstein", "Marie Curie", "Abraham Lincoln", "Charlie Chaplin", "Johannes Kepler", "Franz Schubert",
        "Cleopatra",
    ),
}  # fmt: skip
"""Thirty-five objects and animals, ten styles, eight places and seven people; some of the last are on no list."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emoji", help="whose tokenizer has to know the words")
    subject = cp.load(parser.parse_args().model)
    own = getattr(subject, "tokenizer", None)
    tokenizers = subject.tokenizers or {subject.name: own}
    good = dict.fromkeys(("kits", "splits_disjoint", "subject_found", "words_known"), 0)
    table = Table("kind", "name", "what is wrong")
    for kind in KIT_KINDS:
        for name in NAMES.get(kind, ()):
            try:
                concept = new_kit(name, kind).concept
            except LookupError as error:
                table.add_row(kind, name, str(error))
                continue
            wrong = check_kit(concept, tokenizers=tokenizers)
            failed = {fault.check for fault in wrong}
            good["kits"] += not failed - {CHECKS[5]}
            good["splits_disjoint"] += CHECKS[0] not in failed
            good["subject_found"] += CHECKS[2] not in failed
            good["words_known"] += CHECKS[5] not in failed
            for fault in wrong[:2]:
                table.add_row(kind, name, f"{fault.check}: {fault.where}: {fault.found}")
    Console().print(table)
    print(json.dumps(good))


if __name__ == "__main__":
    main()
