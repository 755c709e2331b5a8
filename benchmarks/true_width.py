"""What it costs to use models as wide as published ones, on this machine, beside the bare operations.

    python benchmarks/true_width.py [--shapes sd14 sdxl sd3 flux] [--blocks N] [--prompts 64] [--folder DIR]

Weights are random, in the shape of Stable Diffusion 1.4 and XL (whole), of SD3-medium with 12 of its 24 blocks, and of
FLUX.1-dev with 4 of its 19 joint blocks and 8 of its 38 single ones (`--blocks` says how many joint ones, and twice as
many single ones go with them); T5-XXL has 2 of its 24 layers. Nothing is downloaded. Pictures are small (64 or 128 pixels a
side) and T5 reads 24 tokens: what is looked at is the weights. A shape is made by one process, loaded barely by a second
and measured by a third, so that the peak of memory is that of using it: loaded, hashed, captured (at the text encoder, and
at the blocks of the denoiser), erased from in closed form (UCE, one prompt by name and one of a neighbour), the edit saved
and switched on, and audited on one prompt of each list without attacks. A shape that neither memory nor disk has room for is left out, and
why is said. Each number of the table stands beside what it can't be faster than. Ends with one line of JSON: by shape,
load_s, hash_s, again_s, erase_s, on_s, capture_ratio, peak_mb and what they stand beside.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

from costs import measured, peak_mb, rounded, summary, timed
from diffusers import DiffusionPipeline
from rich.console import Console
from widths import WIDTHS

from concept_probe.activations import capture
from concept_probe.auditing import AuditPlan, audit
from concept_probe.erasers import Uce
from concept_probe.testing.concepts import tiny_concept, tiny_recogniser
from concept_probe.testing.models import TINY_MODELS
from concept_probe.types import KINDS, Concept, Query, Sampling, Splits

BRIEFLY = Sampling(steps=1, batch=4)
METHOD = Uce(policy="last_subject", sources=("target",), preserve=("neighbours",))
PLAN = AuditPlan(prompts=1, seeds=(0,), sampling=BRIEFLY, fit_images=2, attacks=(), resamples=100)
BLOCKS = {"sd3": 12, "flux": 4}
"""Joint blocks that are made; each of FLUX.1 brings two single ones."""
GIGABYTES = {"sd14": (4.3, 0.0), "sdxl": (13.9, 0.0), "sd3": (5.8, 0.34), "flux": (3.1, 2.5)}
"""Of the weights in float32, without those blocks, and of one of them; a process that uses them takes about a quarter more."""
ROOM = 1.3
"""How many times its weights a shape may take of memory; on disk they lie once."""


def narrow(concept: Concept) -> Concept:
    """One prompt of each list and split: a pass of a wide denoiser takes seconds."""

    def first(splits: Splits) -> Splits:
        return Splits(splits.fit[:1], splits.select[:1], splits.test[:1])

    return replace(concept, **{kind: first(getattr(concept, kind)) for kind in KINDS})


def make(folder: str, shape: str, blocks: int) -> None:
    """Write a pipeline of random weights."""
    if shape not in WIDTHS:
        pipeline = TINY_MODELS[shape.removeprefix("tiny-")]().pipeline
    else:
        pipeline = WIDTHS[shape](blocks) if shape in BLOCKS else WIDTHS[shape]()
    pipeline.save_pretrained(folder, safe_serialization=True)


def bare_load(folder: str) -> float:
    """Seconds that the library takes for what `load` does before it looks at anything."""
    return timed(lambda: DiffusionPipeline.from_pretrained(folder, local_files_only=True))


def measure(folder: str, count: int, shape: str) -> dict[str, Any]:
    """Everything, in seconds and MB, in a process that has done nothing else."""
    concept = narrow(tiny_concept())
    subject, edit, found = measured(folder, count, concept, method=METHOD, times=1)
    found["save_s"] = timed(lambda: edit.save(Path(folder) / "edit"))
    asked, blocks = [Query(concept.target.test[0])], subject.sites("block_out")
    found["picture_s"] = timed(lambda: subject.generate(asked, BRIEFLY))
    before = timed(lambda: subject.sample(asked, BRIEFLY), 2)
    captured = timed(lambda: capture(subject, asked, sites=blocks, sampling=BRIEFLY), 2)
    found["blocks"] = len(blocks)
    found["blocks_ratio"] = captured / min(before, timed(lambda: subject.sample(asked, BRIEFLY), 2))
    found["audit_s"] = timed(lambda: audit(subject, edit, concept, recogniser=tiny_recogniser(), plan=PLAN))
    return rounded({"shape": shape, "prompts": count, **found, "peak_mb": peak_mb()})


def lacking(shape: str, blocks: int, folder: Path) -> str | None:
    """Why there is no room for a shape; None where there is."""
    rest, each = GIGABYTES.get(shape, (0.1, 0.0))
    needed = rest + each * blocks
    free = shutil.disk_usage(folder).free / 1e9
    if free < ROOM * needed:
        return f"its weights take {needed:.1f} GB, and {folder} has {free:.1f} GB free; give another --folder"
    lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else []
    held = [int(line.split()[1]) / 1e6 for line in lines if line.startswith("MemAvailable")]
    if held and held[0] < ROOM * needed:
        return f"it takes about {ROOM * needed:.1f} GB of memory, and {held[0]:.1f} GB are free; end other work"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tiny = [f"tiny-{name}" for name in ("sd", "sdxl", "sd3", "flux")]
    parser.add_argument("--shapes", nargs="+", choices=[*WIDTHS, *tiny], default=list(WIDTHS))
    parser.add_argument("--blocks", type=int, help=f"joint blocks; default: {BLOCKS}")
    parser.add_argument("--prompts", type=int, default=64, help="prompts of the capture")
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()), help="where models are written, and removed"
    )
    options = parser.parse_args()
    console, spawn, rows = Console(stderr=True, width=160), multiprocessing.get_context("spawn"), {}
    for shape in options.shapes:
        blocks = options.blocks or BLOCKS.get(shape, 0)
        if why := lacking(shape, blocks, options.folder):
            console.print(f"{shape} is left out: {why}")
            continue
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:

            def alone(work: Any, *more: Any, folder: str = folder) -> Any:
                with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                    return pool.submit(work, folder, *more).result()

            try:
                console.print(f"{shape}: making it")
                alone(make, shape, blocks)
                console.print(f"{shape}: loading and measuring it")
                rows[shape] = {"bare_load_s": round(alone(bare_load), 4), **alone(measure, options.prompts, shape)}
            except BrokenProcessPool:
                console.print(
                    f"{shape} is left out: its process was killed, most likely for its memory; end other work"
                )
                continue
        summary(rows[shape])
        console.print(
            "loaded by the library alone in {bare_load_s:.1f} s; the edit saved in {save_s:.2f} s; audited in {audit_s:.1f} s, one "
            "picture in {picture_s:.1f} s; captured at {blocks} blocks of the denoiser in {blocks_ratio:.2f} times what drawing "
            "takes".format(**rows[shape])
        )
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
