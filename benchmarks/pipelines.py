"""Every class of pipeline that pictures are drawn with: does it load, does it draw what its own call draws, and is it
left as it was?

    python benchmarks/pipelines.py [--only TEXT]

Models are tiny, of the real classes and with random weights; nothing is downloaded. For each: whether a folder that it is
saved in comes back with the same hash (`loads`), whether taps on a site of every role change no bit (`captures`), whether
a change of a weight reaches the pictures (`edits`) and every byte is back afterwards (`restores`), what was refused of it,
and the largest difference of latents and of pictures between the subject and the pipeline's own `__call__` from the same
noise, the former as a share of the largest latent. Schedulers are tried on one model. What can't be given is listed with
the words that it is refused with. The output ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import inspect
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import diffusers
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from concept_probe.activations import tap
from concept_probe.families import DiffusionSubject, adopt, load
from concept_probe.families.diffusion.schedulers import REFUSED, SCHEDULES
from concept_probe.testing.checks.models import random_edit
from concept_probe.testing.models import save_model
from concept_probe.testing.models.by_itself import drawn_by_itself
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.testing.models.pipelines import NOISY, PIPELINES
from concept_probe.testing.models.read_by_lm import READ_BY_LM
from concept_probe.testing.models.transformers import TRANSFORMERS
from concept_probe.testing.reading import everything, hooks_on
from concept_probe.types import Prompt, Query, Sampling

QUERIES = [Query(Prompt("a cat", "cat"), 1), Query(Prompt("the dog"), 2)]
STEPS = Sampling(steps=3, guidance=3.0)


@dataclass(frozen=True)
class Case:
    """A model, and what it is asked with."""

    make: Callable[[], Any]
    """A subject."""
    sampling: Sampling = STEPS
    options: Mapping[str, Any] = field(default_factory=dict)
    """What loading, and the pipeline's own call, are told besides."""
    in_memory: bool = False
    """Whether what makes it special is not saved with a pipeline."""


@dataclass(frozen=True)
class Outcome:
    """What was seen of a case."""

    pipeline: str
    loads: bool | None
    captures: bool
    edits: bool
    restores: bool
    refused: str | None
    latents: float
    """Largest difference from the pipeline's own result, as a share of the largest latent."""
    pictures: float
    """Largest difference from the pipeline's own result, of 1."""


def cases() -> dict[str, Case]:
    """By name. A family that comes to this package adds its tiny models here, one entry each."""
    out = {
        name: Case(
            lambda kind=kind, name=name: adopt(kind.make(), name, **kind.options),
            kind.sampling, kind.options, ("LoRA" in name and "fused" not in name) or "inversion" in name,
        )
        for name, kind in PIPELINES.items()
    }  # fmt: skip
    return out | {name: Case(make) for name, make in {**TRANSFORMERS, **READ_BY_LM}.items()}


def measured(case: Case) -> Outcome:
    subject: DiffusionSubject = case.make()

    def drawn() -> Any:
        return subject.sample(QUERIES, case.sampling)

    before, weights = drawn(), everything(subject)
    latents, pictures = drawn_by_itself(
        subject.pipeline, QUERIES, subject.latent_shape, case.sampling, **case.options
    )  # fmt: skip
    seen: list[Any] = []
    hooks = hooks_on(subject)  # the library leaves some where a pipeline was called
    sites = [subject.sites(role)[0] for role in subject.roles() if subject.sites(role)[0].side != "weight"]
    with tap(subject, {site: lambda x, moment: seen.append(x.shape) for site in sites}):
        looked = drawn()
    edits, refused = False, None
    role = next(role for role in subject.roles() if subject.sites(role)[0].side == "weight" and "text" not in role)
    try:
        with random_edit(subject, role).on(subject):
            edits = not torch.equal(drawn(), before)
    except ValueError as told:
        refused = str(told)
    same = all(torch.equal(x, weights[name]) for name, x in everything(subject).items())
    return Outcome(
        type(subject.pipeline).__name__,
        None if case.in_memory else _loads(subject, case),
        len(seen) >= len(sites) and torch.equal(looked, before),
        edits,
        same and hooks_on(subject) == hooks and torch.equal(drawn(), before),
        refused,
        float((before - latents).abs().max() / latents.abs().max()),
        float((subject.generate(QUERIES, case.sampling) - pictures).abs().max()),
    )


def _loads(subject: DiffusionSubject, case: Case) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        again = load(save_model(subject, Path(folder)), **case.options)
    return again.weight_hash() == subject.weight_hash()


def scheduled(name: str) -> tuple[int, float]:
    """Passes of four steps with a scheduler, and the largest difference from the pipeline's own latents, as a share."""
    subject, sampling = tiny_sd(), Sampling(steps=4, guidance=3.0)
    kind = getattr(diffusers, name)
    takes, options = inspect.signature(kind.__init__).parameters, {**NOISY, "clip_sample": False}
    subject.pipeline.scheduler = kind(**{key: value for key, value in options.items() if key in takes})
    own, _ = drawn_by_itself(subject.pipeline, QUERIES, subject.latent_shape, sampling)
    ours = subject.sample(QUERIES, sampling)
    return subject.passes(sampling), float((ours - own).abs().max() / own.abs().max())


def _with(**config: Any) -> Any:
    pipeline = tiny_sd().pipeline
    pipeline.unet.register_to_config(**config)
    return pipeline


def _as(kind: str) -> Any:
    return cast(Any, getattr(diffusers, kind))(**tiny_sd().pipeline.components, requires_safety_checker=False)


REFUSALS: dict[str, Callable[[], object]] = {
    "told by a picture (InstructPix2Pix)": lambda: adopt(_as("StableDiffusionInstructPix2PixPipeline"), "x"),
    "IP-adapter": lambda: adopt(_with(encoder_hid_dim_type="ip_image_proj"), "x"),
    "class labels": lambda: adopt(_with(num_class_embeds=10), "x"),
    "inpainting U-Net in a plain pipeline": lambda: adopt(_with(in_channels=9), "x"),
    "clip_skip beyond the layers": lambda: adopt(tiny_sd().pipeline, "x", clip_skip=9),
}


def said(ask: Callable[[], object]) -> str | None:
    """What something is refused with; None where it is not."""
    try:
        ask()
    except (LookupError, ValueError) as told:
        return str(told)
    return None


def mark(value: bool | None) -> str:
    return "-" if value is None else "yes" if value else "NO"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names of cases that hold this text")
    only, console = parser.parse_args().only, Console(width=140)
    warnings.simplefilter("ignore")
    found: dict[str, Outcome] = {}
    table = Table(
        "model", "pipeline", "loads", "captures", "edits", "restores", "latents off", "pictures off", box=box.SIMPLE
    )
    for name, case in cases().items():
        if only.lower() in name.lower():
            found[name] = one = measured(case)
            marks = [mark(x) for x in (one.loads, one.captures, one.edits, one.restores)]
            table.add_row(name, one.pipeline, *marks, f"{one.latents:.1e}", f"{one.pictures:.1e}")
    console.print(table)
    for name, one in found.items():
        if one.refused:
            console.print(f"{name}, edits: {one.refused}\n", highlight=False)
    names = [name for name in SCHEDULES if not name.startswith("Flow") and not only]
    steps = {name: scheduled(name) for name in names}
    if steps:
        table = Table("scheduler", "passes of 4 steps", "latents off", box=box.SIMPLE)
        for name, (passes, off) in steps.items():
            table.add_row(name, str(passes), f"{off:.1e}")
        console.print(table)
    refused = {} if only else {name: said(ask) for name, ask in REFUSALS.items()}
    refused |= {} if only else {name: f"the scheduler {name} {why}" for name, why in REFUSED.items()}
    for name, why in refused.items():
        console.print(f"{name}: {why or 'NOT REFUSED'}\n", highlight=False)
    everything_off = [one.latents for one in found.values()] + [off for _, off in steps.values()]
    print(
        json.dumps(
            {
                "classes": {name: asdict(one) for name, one in found.items()},
                "schedulers": {name: {"passes": passes, "latents": off} for name, (passes, off) in steps.items()},
                "refused": refused,
                "largest_difference": max(everything_off),
            }
        )
    )


if __name__ == "__main__":
    main()
