"""What it costs to use a model, each number beside what it can't be faster than; random weights will do."""

from __future__ import annotations

import hashlib
import resource
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from concept_probe.activations import capture
from concept_probe.erasers import Edit, Uce, erase
from concept_probe.erasers.closed_form.solve import solve_uce
from concept_probe.erasers.closed_form.states import ReadStates, fit_of, gather, multiplied
from concept_probe.families import DiffusionSubject, load
from concept_probe.types import Concept, Prompt

METHOD = Uce(policy="last_subject")
"""The closed form that is timed: what an edit costs to switch on grows with the tokens that it moves."""
GOALS: dict[str, tuple[str, str, float]] = {
    "again_s": ("hash again, nothing changed", "hash_s", 0.05),
    "on_s": ("an edit on and off", "hash_s", 0.05),
    "hash_s": ("hash of all weights", "plain_sha256_s", 1.5),
    "erase_s": ("erase('uce'), hashed before", "states_s + solve_s", 1.5),
    "capture_ratio": ("capture at 12 layers / bare text encoder", "", 1.15),
    "peak_mb": ("peak of memory", "weights_mb", 1.25),
}
"""Key to what it is, what it is measured against, and at most how many times that it should be."""


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
    sites = [site for site in subject.sites("text_stream") if site.component == "text_encoder"][:12]
    encoder, parts = subject.components["text_encoder"], subject.tokenise(prompts).ids[0].split(64)

    def bare() -> None:
        with torch.no_grad():
            for ids in parts:
                encoder(input_ids=ids.to(subject.device))

    bare()
    before = timed(bare)
    captured = timed(lambda: capture(subject, prompts, sites=sites))
    return captured / min(before, timed(bare))


def measured(
    folder: str, count: int, concept: Concept, *, method: Uce = METHOD, times: int = 3
) -> tuple[DiffusionSubject, Edit, dict[str, Any]]:
    """The model in `folder`, an edit of it, and what they cost, in seconds and MB, in a process that has done nothing
    else. What erases is timed `times` times."""
    begin = time.perf_counter()
    subject = load(folder)
    assert isinstance(subject, DiffusionSubject)
    found: dict[str, Any] = {"load_s": time.perf_counter() - begin}
    tensors = [x for c in subject.components.values() for x in (*c.parameters(), *c.buffers())]
    found["weights_mb"] = sum(x.numel() * x.element_size() for x in tensors) / 1e6
    found["hash_s"] = timed(subject.weight_hash)
    found["plain_sha256_s"] = timed(lambda: plain_sha256(subject))
    found["again_s"] = timed(subject.weight_hash, 3)
    edits: list[Edit] = []
    found["erase_s"] = timed(lambda: edits.append(erase(method, subject, concept)), times)
    gathered: list[list[ReadStates]] = []
    found["states_s"] = timed(lambda: gathered.append(gather(subject, concept, method, method.name)), times)
    found["solve_s"] = timed(lambda: solve(subject, method, gathered[0]), times)

    def on() -> None:
        with edits[0].on(subject):
            pass

    found["on_s"] = timed(on, 3)
    found["capture_ratio"] = capture_ratio(subject, count)
    return subject, edits[0], found


def peak_mb() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}


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
