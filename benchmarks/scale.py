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
import hashlib
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from rich import box
from rich.console import Console
from rich.table import Table
from transformers import CLIPTextConfig, CLIPTextModel

from concept_probe.activations import capture
from concept_probe.erasers import Uce, erase
from concept_probe.erasers.closed_form.solve import solve_uce
from concept_probe.erasers.closed_form.states import ReadStates, fit_of, gather, multiplied
from concept_probe.families import DiffusionSubject, load
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tokenizer
from concept_probe.types import Prompt

ROWS = Path(__file__).parent / "rows" / "scale.jsonl"
SHAPES: dict[str, dict[str, Any]] = {
    "sd14": {
        "text": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
        "words": 49408, "unet": (320, 640, 1280, 1280), "heads": 8, "blocks": 2, "vae": (128, 256, 512, 512), "size": 64,
    },
    "tiny": {
        "text": {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 12, "num_attention_heads": 2},
        "words": 1000, "unet": (32, 64), "heads": 2, "blocks": 1, "vae": (32, 64), "size": 8,
    },
}  # fmt: skip
GOALS: dict[str, tuple[str, str, float]] = {
    "again_s": ("hash again, nothing changed", "hash_s", 0.05),
    "on_s": ("an edit on and off", "hash_s", 0.05),
    "hash_s": ("hash of all weights", "plain_sha256_s", 1.5),
    "erase_s": ("erase('uce'), hashed before", "states_s + solve_s", 1.5),
    "capture_ratio": ("capture at 12 layers / bare text encoder", "", 1.15),
    "peak_mb": ("peak of memory", "weights_mb", 1.25),
}
"""Key to what it is, what it is measured against, and at most how many times that it should be."""


def make(folder: str, shape: str) -> None:
    """Write a pipeline of random weights."""
    asked, words = SHAPES[shape], tokenizer()
    words.model_max_length = 77
    torch.manual_seed(0)
    special = {name: getattr(words, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = CLIPTextConfig(
        vocab_size=asked["words"], max_position_embeddings=77, hidden_act="quick_gelu", **special, **asked["text"]
    )
    cross, plain = len(asked["unet"]) - 1, 1
    unet = UNet2DConditionModel(
        sample_size=asked["size"], block_out_channels=asked["unet"], layers_per_block=asked["blocks"],
        down_block_types=("CrossAttnDownBlock2D",) * cross + ("DownBlock2D",) * plain,
        up_block_types=("UpBlock2D",) * plain + ("CrossAttnUpBlock2D",) * cross,
        cross_attention_dim=asked["text"]["hidden_size"], attention_head_dim=asked["heads"],
    )  # fmt: skip
    depth = len(asked["vae"])
    vae = AutoencoderKL(  # pyright: ignore[reportCallIssue]
        block_out_channels=asked["vae"], down_block_types=("DownEncoderBlock2D",) * depth,
        up_block_types=("UpDecoderBlock2D",) * depth, layers_per_block=asked["blocks"],
        sample_size=asked["size"] * 2 ** (depth - 1),
    )  # fmt: skip
    steps = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    made: Any = StableDiffusionPipeline
    made(
        vae=vae, text_encoder=CLIPTextModel(text), tokenizer=words, unet=unet, scheduler=steps, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)  # fmt: skip


def timed(work: Callable[[], object], times: int = 1) -> float:
    """Seconds of the fastest of some runs."""
    out = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        out.append(time.perf_counter() - begin)
    return min(out)


def plain_sha256(subject: DiffusionSubject) -> None:
    """The least that a hash of all weights can take: sha256 of their bytes."""
    sha = hashlib.sha256()
    for component in subject.components.values():
        for x in (*component.parameters(), *component.buffers()):
            sha.update(x.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def solve(subject: DiffusionSubject, method: Uce, groups: Sequence[ReadStates]) -> None:
    """What UCE computes of the states it has read."""
    for group in groups:
        states, sums = group.states, group.states.moments()
        alpha, beta = sums.weights(method.alpha, method.beta, method.balance)
        solution = solve_uce(sums, lam=method.lam, alpha=alpha, beta=beta, method=method.name)
        multiplied(subject, group.sites, solution.change, len(states.target), method.strength)
        fit_of(solution.change, states)


def capture_ratio(subject: DiffusionSubject, count: int) -> float:
    """Seconds of a capture of every token at every layer, over those of the text encoder alone in the same batches."""
    prompts = [Prompt(f"a picture of the cat and {i} red things in the sun", "cat") for i in range(count)]
    sites = subject.sites("text_stream")[:12]
    encoder, parts = subject.components["text_encoder"], subject.tokenise(prompts).ids[0].split(64)

    def bare() -> None:
        with torch.no_grad():
            for ids in parts:
                encoder(input_ids=ids.to(subject.device))

    bare()
    before = timed(bare)
    captured = timed(lambda: capture(subject, prompts, sites=sites))
    return captured / min(before, timed(bare))


def measure(folder: str, count: int, shape: str) -> dict[str, Any]:
    """Everything, in seconds and MB, in a process that has done nothing else."""
    begin = time.perf_counter()
    subject = load(folder)
    assert isinstance(subject, DiffusionSubject)
    found: dict[str, Any] = {
        "shape": shape,
        "prompts": count,
        "policy": "last_subject",
        "load_s": time.perf_counter() - begin,
    }
    tensors = [x for c in subject.components.values() for x in (*c.parameters(), *c.buffers())]
    found["weights_mb"] = sum(x.numel() * x.element_size() for x in tensors) / 1e6
    found["hash_s"] = timed(subject.weight_hash)
    found["plain_sha256_s"] = timed(lambda: plain_sha256(subject))
    found["again_s"] = timed(subject.weight_hash, 3)
    concept, method = tiny_concept(), Uce(policy="last_subject")
    edit = erase(method, subject, concept)
    found["erase_s"] = timed(lambda: erase(method, subject, concept), 2)
    states = gather(subject, concept, method, "uce")
    found["states_s"] = timed(lambda: gather(subject, concept, method, "uce"), 2)
    found["solve_s"] = timed(lambda: solve(subject, method, states), 2)

    def on() -> None:
        with edit.on(subject):
            pass

    found["on_s"] = timed(on, 3)
    found["capture_ratio"] = capture_ratio(subject, count)
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}


def summary(row: dict[str, Any]) -> None:
    """The table of one row."""
    table = Table("what", "measured", "against", "times", "at most", box=box.MARKDOWN)
    for key, (what, against, goal) in GOALS.items():
        base = sum(row[name] for name in against.split(" + ")) if against else 1.0
        unit = {"peak_mb": " MB", "capture_ratio": ""}.get(key, " s")
        names = " + ".join(name.rpartition("_")[0].replace("_", " ") for name in against.split(" + "))
        beside = f"{names} {base:.3g}{unit}".strip()
        table.add_row(what, f"{row[key]:.3g}{unit}", beside, f"{row[key] / base:.3g}", f"{goal:g}")
    console = Console(width=160)
    console.print(
        f"{row['shape']}: {row['weights_mb'] / 1e3:.2f} GB, loaded in {row['load_s']:.1f} s, {row['prompts']} prompts captured"
    )
    console.print(table)


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
        rows = [found]
        with options.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
    for row in rows:
        summary(row)
    print(json.dumps(rows[-1]))


if __name__ == "__main__":
    main()
