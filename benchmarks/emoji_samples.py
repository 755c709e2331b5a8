"""Draw the sample sheet of the model card: some objects (columns) in every style (rows), asked for in test sentences.

python benchmarks/emoji_samples.py docs/models/emoji-samples.png [--model emoji]
"""

from __future__ import annotations

import argparse

import torch
from PIL import Image

import concept_probe as cp
from concept_probe.testbed.vocabulary import STYLE_NAMES, STYLES, TEMPLATES, objects
from concept_probe.types import Prompt, Query


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output")
    parser.add_argument("--model", default="emoji")
    options = parser.parse_args()
    entries = objects()[2::8]
    asked = [
        Query(Prompt(TEMPLATES["test"][i % 4].format(o=o.name, s=STYLE_NAMES[style][0]), o.name, o.name), i)
        for style in STYLES
        for i, o in enumerate(entries)
    ]
    pictures = cp.load(options.model).generate(asked)
    rows = [torch.cat(list(part), -1) for part in pictures.split(len(entries))]
    sheet = (torch.cat(rows, -2) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    Image.fromarray(sheet).save(options.output, optimize=True)
    print(", ".join(o.name for o in entries))


if __name__ == "__main__":
    main()
