"""What a model of Stable Diffusion 1.4's size costs: to load, to hash, to erase from, to edit and to capture.

    python benchmarks/scale.py [--shape sd14] [--prompts 512] [--rows FILE]
    python benchmarks/scale.py --summary

Weights are random, in the shape of the real ones: U-Net, autoencoder and CLIP-L text encoder, 4.3 GB in float32; nothing
is downloaded. UCE moves the last subject token of each prompt: what an edit costs to switch on grows with its rank. The
model is written to a temporary folder by one process and measured by another, so that the peak of memory is that of
using it. Each number stands beside what it can't be faster than. The row is appended to FILE, and ends the output as one
line of JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
from pathlib import Path
from typing import Any

from costs import METHOD, measured, peak_mb, rounded, summary
from widths import SD14, TINY, stable_diffusion

from concept_probe.testing.concepts import tiny_concept

ROWS = Path(__file__).parent / "rows" / "scale.jsonl"
SHAPES: dict[str, dict[str, Any]] = {"sd14": SD14, "tiny": TINY}


def make(folder: str, shape: str) -> None:
    """Write a pipeline of random weights."""
    stable_diffusion(SHAPES[shape]).save_pretrained(folder, safe_serialization=True)


def measure(folder: str, count: int, shape: str) -> dict[str, Any]:
    """Everything, in seconds and MB, in a process that has done nothing else."""
    _, _, found = measured(folder, count, tiny_concept())
    return rounded({"shape": shape, "prompts": count, "policy": METHOD.policy, **found, "peak_mb": peak_mb()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="sd14")
    parser.add_argument("--prompts", type=int, default=512, help="prompts of the capture")
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--folder", type=Path, help="where the model is written and removed again")
    parser.add_argument("--summary", action="store_true", help="print the tables of the stored rows, run nothing")
    options = parser.parse_args()
    if options.summary:
        rows = [json.loads(line) for line in options.rows.read_text(encoding="utf-8").splitlines()]
    else:
        spawn = multiprocessing.get_context("spawn")
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            for work, more in ((make, (options.shape,)), (measure, (options.prompts, options.shape))):
                with spawn.Pool(1) as pool:
                    found = pool.apply(work, (folder, *more))
        assert found is not None  # for the type checker: the last of the two measures
        rows = [found]
        with options.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
    for row in rows:
        summary(row)
    print(json.dumps(rows[-1]))


if __name__ == "__main__":
    main()
