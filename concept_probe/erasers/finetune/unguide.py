"""UnGuide: base and adapted predictions, mixed by how much the adapters say of the trajectory at hand (arXiv 2508.05755)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor

from concept_probe.arguments import Count
from concept_probe.erasers.closed_form.destinations import destinations_of, texts_of
from concept_probe.erasers.closed_form.states import prompts_to_erase
from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.intervention import Intervention
from concept_probe.erasers.finetune.distillation import (
    TINY_TRAINING,
    Training,
    distil,
    latent_by_latent,
    past_anchor_term,
    retain_terms,
)
from concept_probe.erasers.finetune.parts import weights_at
from concept_probe.erasers.needs import Needs
from concept_probe.erasers.published import Published
from concept_probe.erasers.training.loop import loss_at_ends
from concept_probe.erasers.training.replay import collect, encode_prompts, predictions
from concept_probe.erasers.training.trainable import LowRankAdapters
from concept_probe.families import Conditioning, DiffusionSubject
from concept_probe.types import OTHER_KINDS, Concept, Kind, Moment, Prompt, Subspace, evenly


def row_norms(x: Tensor) -> Tensor:
    """Norm of each row (n, c, h, w) -> (n,), float32."""
    return torch.linalg.vector_norm(x.float().flatten(1), dim=1)


def separating_threshold(own: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """The threshold that most of `own` are above and most of `others` are not, and its balanced accuracy.

    Numbers above 0. It lies halfway, on a scale of logarithms, between two neighbours; of equals, the widest gap counts.
    """
    values = sorted({*own, *others})
    best = (0.0, 0.0, values[0])
    for low, high in pairwise(values):
        middle = math.sqrt(low * high)
        above = sum(x > middle for x in own) / len(own)
        below = sum(x <= middle for x in others) / len(others)
        best = max(best, ((above + below) / 2, high / low, middle))
    accuracy, _, threshold = best
    return threshold, max(accuracy, 0.5)


@dataclass(frozen=True)
class Unguide(Eraser[DiffusionSubject, Intervention]):
    """Adapters that unlearn, put on with a weight beyond 1 where they change much, and taken away where little.

    >>> guard = Unguide(present=-1.0, absent=1.0)(subject, concept)
    """

    name = "unguide"
    makes = "guard"
    asks = True
    on = "pictures"
    needs = Needs(anchor=True)
    aims = "to_anchor"
    origin = "published"
    authors = Published(
        {"training": latent_by_latent(200, 3e-5)}, apart="the threshold is that of one prompt's thirty latents"
    )
    rank: Count = 4
    """Rank of each adapter."""
    eta: float = 1.0
    """η: how far past the anchor the adapters lead the concept."""
    guide: str | None = None
    """What stands in for the concept; see `ConceptAblation`."""
    present: float = -1.0
    """w where the trajectory is one of the concept: ε = w ε_base + (1 - w) ε_adapted."""
    absent: float = 2.0
    """w of other trajectories; 1 leaves the base model alone."""
    watch: Count = 3
    """Passes of a trajectory, from its start, that are measured; w goes by those so far, and is settled after the last."""
    threshold: float | None = None
    """Adapters' change of a prompt's predictions over that of the empty prompt's, above which a trajectory is one of the
    concept; None: what divides the concept's prompts of the select split from the others."""
    sources: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts that are erased (fit split) and that the threshold is for (select split)."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts, of the retain term (fit split) and of the threshold (select split)."""
    roles: tuple[str, ...] = ("cross_key", "cross_value")
    """Roles whose modules get an adapter; the paper's choice is keys and values."""
    training: Training = Training(rate=0.02)
    """How the adapters are trained."""
    strength: float = 1.0
    """Factor on what is added to the base model's predictions; at 0 nothing is trained."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(absent=1.0, training=TINY_TRAINING)

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Intervention:
        """ValueError where the concept has no prompts in `sources`, or no select prompts to set the threshold by."""
        if self.watch < 1:
            raise ValueError(f"{self.name}: watch is {self.watch}; a trajectory is told by at least 1 of its steps")
        moved = prompts_to_erase(concept, self.sources, self.name)
        anchors = destinations_of(moved, concept, self.guide, self.name)
        lists = [
            [p for kind in kinds for p in concept.prompts(kind, "select")] for kinds in (self.sources, self.preserve)
        ]
        if self.threshold is None and not all(lists):
            missing = self.preserve if lists[0] else self.sources
            raise ValueError(
                f"{self.name}: concept {concept.name!r} has no select prompts in {', '.join(missing) or 'no list'} "
                "to set the threshold by; give a `threshold`"
            )
        student = LowRankAdapters(subject, weights_at(subject, self.roles), self.rank, self.training.seed)
        losses, threshold, accuracy = [], self.threshold or 0.0, None
        if self.strength:
            terms = [past_anchor_term(subject, moved, anchors, self.eta)]
            terms += retain_terms(subject, concept, self.preserve, self.training.retain)
            losses = distil(subject, student, terms, self.training, self.name)
            if self.threshold is None:
                own, rest = (self._influences(subject, student, prompts) for prompts in lists)
                threshold, accuracy = separating_threshold(own, rest)
        action = Mixture(self, subject, student, threshold)
        return self.guard(
            concept,
            {action.site: action},
            loss=loss_at_ends(losses),
            divided_at=threshold,
            told_apart=accuracy,
            guides=texts_of(anchors),
        )

    def _influences(
        self, subject: DiffusionSubject, student: LowRankAdapters, prompts: Sequence[Prompt]
    ) -> list[float]:
        """The adapters' influence at each of the first steps of the base model's trajectories for prompts."""
        count = self.training.pictures
        buffer = collect(subject, evenly(prompts, count), count, self.training.sampling, self.training.seed + 500)
        assert buffer.passes is not None  # they were collected, so it is known
        buffer = buffer.rows((buffer.passes < self.watch).nonzero()[:, 0])
        changes = []
        for asked in (list(buffer.prompts), [Prompt("")] * len(buffer)):
            base = predictions(subject, buffer, asked)
            with student.active():
                changes.append(row_norms(predictions(subject, buffer, asked) - base))
        return relative_influence(*changes).tolist()


def relative_influence(prompt: Tensor, empty: Tensor) -> Tensor:
    """|ε_adapted(x, p) - ε(x, p)| / |ε_adapted(x, ∅) - ε(x, ∅)| (n,), from these norms; never below 1e-6."""
    return (prompt / empty.clamp(min=1e-12)).clamp(min=1e-6)


class Mixture:
    """(predictions, moment) -> what is added to them: (1 - w)(adapted - base) of every row, w by the row's trajectory."""

    def __init__(self, eraser: Unguide, subject: DiffusionSubject, student: LowRankAdapters, threshold: float) -> None:
        self.eraser, self.subject, self.student, self.threshold = eraser, subject, student, threshold
        self.site = subject.sites("denoiser_out")[0]
        self.measured: dict[int, list[tuple[float, float]]] = {}
        """Per asked prompt of the trajectory under way, the two norms at each of its first steps."""
        self.last: int | None = None
        """The step of it that was met last; None outside a trajectory."""

    def __call__(self, x: Tensor, moment: Moment) -> Tensor | None:
        if moment.nested:
            return None
        # Another tap may have changed x, and w is for what the model predicts.
        base = x if self.subject.state.taps(self.site) == 1 else self.subject.repredict(None, range(len(x)))
        change = self._adapted(None, range(len(x))) - base
        if moment.step is None or self.last is None or moment.step <= self.last:
            self.measured.clear()
        self.last = moment.step
        self._measure(change, moment)
        weights = [1 - self.weight(p) for p in moment.prompts]
        return torch.tensor(weights, device=x.device, dtype=x.dtype)[:, None, None, None] * change

    def weight(self, prompt: int) -> float:
        """w of the trajectory of a prompt that was asked for."""
        own, empty = (sum(part) for part in zip(*self.measured[prompt], strict=True))
        ratio = float(relative_influence(torch.tensor(own), torch.tensor(empty)))
        return self.eraser.present if ratio > self.threshold else self.eraser.absent

    def _measure(self, change: Tensor, moment: Moment) -> None:
        rows = moment.conditional
        rows = [i for i in rows if len(self.measured.get(moment.prompts[i], ())) < self.eraser.watch]
        if not rows:
            return
        other = {moment.prompts[i]: i for i, branch in enumerate(moment.branches) if branch == "uncond"}
        if all(moment.prompts[i] in other for i in rows):
            empty = change[[other[moment.prompts[i]] for i in rows]]
        else:
            empty = self._of_empty(rows)
        for i, own, none in zip(rows, row_norms(change[rows]).tolist(), row_norms(empty).tolist(), strict=True):
            self.measured.setdefault(moment.prompts[i], []).append((own, none))

    def _of_empty(self, rows: Sequence[int]) -> Tensor:
        """The adapters' change of the prediction under the empty prompt: without guidance nobody has asked for it."""
        condition = encode_prompts(self.subject, [Prompt("")])
        condition = condition.rows(torch.zeros(len(rows), dtype=torch.long, device=condition.states.device))
        return self._adapted(condition, rows) - self.subject.repredict(condition, rows)

    def _adapted(self, condition: Conditioning | None, rows: Sequence[int]) -> Tensor:
        with self.student.active():
            return self.subject.repredict(condition, rows)
