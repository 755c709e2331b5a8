"""Linear probes of an audit: each model gets its own, and they are read on words that they were not fitted on."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from concept_probe.auditing.arm import Arm
from concept_probe.auditing.evidence.behaviour import Views
from concept_probe.auditing.observe import Observation, end_states
from concept_probe.evaluation.bayesian import Draws
from concept_probe.types import FORGET_KINDS, Prompt, Site, Split

SHUFFLES = 10
Rows = tuple[Tensor, Tensor, Tensor, Tensor]
"""Activations: fit of the concept, fit of others, held out of the concept, held out of others."""
Asked = tuple[Sequence[Prompt], Sequence[Prompt]]
"""The prompts of the rows that are held out: of the concept, of others."""


@dataclass(frozen=True, eq=False)
class Probe:
    """Linear readers fitted by ridge regression on labels ±1; one per column of the labels."""

    mean: Float[Tensor, "d"]
    scale: Float[Tensor, "d"]
    weight: Float[Tensor, "d m"]

    def __call__(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... m"]:
        return ((x.double() - self.mean) / self.scale) @ self.weight


def fit_probes(x: Float[Tensor, "n d"], labels: Bool[Tensor, "n m"], penalty: float = 0.1) -> Probe:
    """w = Zᵀ (Z Zᵀ + penalty · tr(Z Zᵀ)/n · 1)⁻¹ y for standardised columns Z and y = ±1 weighted to sum to 0.

    Solved over rows, not dimensions, so that a hundred shuffled labels cost one solve.
    Raises ValueError where a column of labels has only one kind.
    """
    share = labels.double().mean(0)
    if bool(((share == 0) | (share == 1)).any()):
        raise ValueError("a probe needs rows of the concept and rows of others to be fitted on")
    x = x.double()
    mean, scale = x.mean(0), x.std(0).clamp_min(1e-8)
    z = (x - mean) / scale
    y = torch.where(labels, 1 / share, -1 / (1 - share))
    gram = z @ z.mT
    gram += penalty * gram.diagonal().mean().clamp_min(1e-8) * torch.eye(len(z), dtype=z.dtype)
    return Probe(mean, scale, z.mT @ torch.linalg.solve(gram, y))


def _fit(rows: Rows, shuffles: int, seed: int) -> Probe:
    """Column 0 reads the concept; the others were fitted on shuffled labels."""
    x = torch.cat(rows[:2])
    own = torch.arange(len(x)) < len(rows[0])
    generator = torch.Generator().manual_seed(seed)
    mixed = [own[torch.randperm(len(x), generator=generator)] for _ in range(shuffles)]
    return fit_probes(x, torch.stack([own, *mixed], dim=1))


def facts_of(prompts: Sequence[Prompt]) -> Tensor:
    """(n,) long: the number of the fact that each prompt asks for. Prompts without one count each."""
    number: dict[str, int] = {}
    return torch.tensor([number.setdefault(p.fact or p.text, len(number)) for p in prompts], dtype=torch.long)


def compare(
    views: Views, key: str, rows_of: Callable[[Observation], Rows], asked: Asked,
    made: tuple[Rows, Asked] | None = None,
) -> dict[str, Draws]:  # fmt: skip
    """`before`, `after` and `control`, each with its own probe; `foreign`, the probe of before on after; `shuffled`.

    Wordings of one fact are drawn together.
    Without a twin the control is the made-up concept, whose rows are `made`; without those there is none.
    """
    seed, bootstrap = views.bootstrap.seed, views.bootstrap

    def read(probe: Probe, rows: Rows, arm: str, column: int = 0, of: Asked = asked) -> Draws:
        mine, others = probe(rows[2])[..., column], probe(rows[3])[..., column]
        if mine.ndim == 2:  # inside the denoiser a prompt has one reading per seed; prompts are what is drawn
            mine, others = mine.mean(1), others.mean(1)
        return bootstrap.auroc(mine, others, key, arm, (facts_of(of[0]), facts_of(of[1])))

    before, after = rows_of(views.before), rows_of(views.after)
    first, second = _fit(before, 0, seed), _fit(after, SHUFFLES, seed)
    # Activations that are the same to the bit are the same evidence, not a second sample of it.
    name = "before" if all(map(torch.equal, before, after)) else "after"
    out = {
        "before": read(first, before, "before"),
        "after": read(second, after, name),
        "foreign": read(first, after, name),
        "shuffled": mean_of([read(second, after, f"shuffled {i}", i) for i in range(1, SHUFFLES + 1)]),
    }
    if views.control is None:
        if made is None:
            return out
        rows, of = made
        return out | {"control": read(_fit(rows, 0, seed), rows, "made up", of=of)}
    control = rows_of(views.control)
    same = all(map(torch.equal, control, after))
    return out | {"control": read(_fit(control, 0, seed), control, name if same else "control")}


def mean_of(several: Sequence[Draws]) -> Draws:
    return Draws(
        sum(d.value for d in several) / len(several), torch.stack([d.draws for d in several]).mean(0), several[0].n
    )


def garbled(prompt: Prompt, split: str) -> Prompt:
    """The prompt with the letters of every word of its subject shuffled: as long, and known to nobody."""
    assert prompt.subject is not None  # callers pass prompts that name a subject

    def shuffle(match: re.Match[str]) -> str:
        letters = list(match.group())
        random.Random(zlib.crc32(f"{split}/{match.group()}".encode())).shuffle(letters)
        return "".join(letters)

    word = re.sub(r"[^\W\d_]+", shuffle, prompt.subject)
    return replace(prompt, text=prompt.text.replace(prompt.subject, word), subject=word)


def made_up(views: Views, before: Arm, sites: Sequence[Site]) -> dict[Site, tuple[Tensor, Tensor, list[Prompt]]]:
    """Per text site, end-token activations of a made-up concept: to fit on, held out, and the prompts of the latter.
    Empty without named subjects.

    It has the concept's prompts with garbled names, other ones in the held-out prompts than in those
    fitted on. No model knows it, so what is read of it is read from words.
    """
    parts: list[tuple[Split, list[Prompt]]] = [
        ("fit", [p for p in views.plan.fits(96)[0] if p.subject]),
        ("test", [p for kind in FORGET_KINDS[1:] for p in views.plan.prompts(kind) if p.subject]),
    ]
    if not all(prompts for _, prompts in parts):
        return {}
    fit, held = ([garbled(p, split) for p in prompts] for split, prompts in parts)
    with before.on():
        rows = end_states(before.subject, [*fit, *held], sites)
    return {site: (x[: len(fit)], x[len(fit) :], held) for site, x in rows.items()}
