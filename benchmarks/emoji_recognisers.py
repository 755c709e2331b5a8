"""How recognisers do on clean pictures of `emoji`'s objects: accuracy, and how often they see an object that is not there.

    python benchmarks/emoji_recognisers.py [--concept camel] [--copies 2]

Pictures are the icons of every object in every style, moved, resized and mirrored by a seed that nothing was trained
on. `clip, 126 labels` names each picture as one of the objects or nothing; `clip, concept or nothing` and `q16` tell
the concept alone from the rest. q16 learns from other copies of a sixth of the objects. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from concept_probe import detect
from concept_probe.detect.clip import ZeroShot
from concept_probe.detect.q16 import learn_prompts
from concept_probe.evaluation.recogniser_rates import recogniser_rates
from concept_probe.testbed.icons import augment, icons
from concept_probe.testbed.vocabulary import objects


def drawn(copies: int, seed: int) -> tuple[Tensor, list[str]]:
    """`copies` of every icon, moved about, in 0..1, and the objects that they show."""
    x = icons().flatten(0, 1).repeat(copies, 1, 1, 1)
    names = [o.name for o in objects()] * len(icons()) * copies
    return (augment(x, torch.Generator().manual_seed(seed)) + 1) / 2, names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concept", default="camel")
    parser.add_argument("--copies", type=int, default=2, help="of each of the 504 icons")
    options = parser.parse_args()
    concept, names = options.concept, [o.name for o in objects()]
    pair = detect.text_image()
    learnt, shown = drawn(4, 10**9 + 1)
    chosen = [i for i, s in enumerate(shown) if s == concept or names.index(s) % 6 == 0]
    looks = {
        "emoji": detect.recogniser("emoji"),
        "clip, 126 labels": ZeroShot(pair, (*names, "none")),
        "clip, one sentence": ZeroShot(pair, (*names, "none"), ("a picture of {}",), ("a picture",)),
        "clip, concept or nothing": ZeroShot(pair, (concept, "none")),
        "q16": learn_prompts(
            pair, learnt[chosen], [concept if shown[i] == concept else "none" for i in chosen], start={concept: concept}
        ),
    }
    images, real = drawn(options.copies, 10**9 + 2)
    table = Table("recogniser", "version", "named rightly", f"{concept} seen in others", f"{concept} found", "n")
    figures = {}
    for name, recogniser in looks.items():
        two = len(recogniser.labels) == 2
        found = recogniser_rates(recogniser, images, [s if not two or s == concept else "none" for s in real], concept)
        own = torch.tensor([s == concept for s in real])
        hit = recogniser_rates(recogniser, images[own], [concept] * int(own.sum()), "nothing of the kind").accuracy
        cells = [f"{s.value:.3f} [{s.low:.3f}, {s.high:.3f}]" for s in (found.accuracy, found.false_positives, hit)]
        table.add_row(name, recogniser.version, *cells, str(found.accuracy.n))
        figures[name] = {
            "accuracy": found.accuracy.value, "false_positives": found.false_positives.value, "found": hit.value,
        }  # fmt: skip
    Console(width=160).print(table)
    q16 = looks["q16"]
    print(f"q16 on its {q16.held} held-out pictures: wrong {q16.error:.3f}, false positives {q16.false_positives:.3f}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
