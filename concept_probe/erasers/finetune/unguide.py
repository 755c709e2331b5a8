"""UnGuide: base and adapted predictions, mixed by how much the adapters say of the walk at hand (arXiv 2508.05755)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from concept_probe.erasers.closed_form.states import moved_prompts
from concept_probe.erasers.erasure.intervention import Intervention
from concept_probe.erasers.erasure.provenance import made_by
from concept_probe.erasers.finetune.distillation import Lesson, Training, keep, same, teach
from concept_probe.erasers.finetune.loop import ends
from concept_probe.erasers.finetune.replay import denoiser, predictions, read, walks
from concept_probe.erasers.finetune.spm import apart, beside, guide_of
from concept_probe.erasers.finetune.trainable import Adapters
from concept_probe.types import OTHER_KINDS, Concept, Kind, Moment, Prompt, Subspace, evenly

if TYPE_CHECKING:
    from concept_probe.families import Subject


def size(x: Tensor) -> Tensor:
    """Norm of each row (n, c, h, w) -> (n,), float32."""
    return torch.linalg.vector_norm(x.float().flatten(1), dim=1)


def dividing(own: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
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
class Unguide:
    """Adapters that unlearn, put on with a weight beyond 1 where they change much, and taken away where little.

    >>> guard = Unguide(present=-1.0, absent=1.0)(subject, concept)
    """

    name: ClassVar[str] = "unguide"
    rank: int = 4
    """Rank of each adapter."""
    eta: float = 1.0
    """η: how far past the anchor the adapters lead the concept."""
    guide: str | None = None
    """What stands in for the concept; see `ConceptAblation`."""
    present: float = -1.0
    """w where the walk is one of the concept: ε = w ε_base + (1 - w) ε_adapted."""
    absent: float = 2.0
    """w of other walks; 1 leaves the base model alone."""
    watch: int = 3
    """Steps of a walk, from its start, that are measured; w goes by those so far, and is settled after the last."""
    threshold: float | None = None
    """Adapters' change of a prompt's predictions over that of the empty prompt's, above which a walk is one of the
    concept; None: what divides the concept's prompts of the select split from the others."""
    sources: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts that are erased (fit split) and that the threshold is for (select split)."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts, of the retain lesson (fit split) and of the threshold (select split)."""
    roles: tuple[str, ...] = ("cross_key", "cross_value")
    """Roles whose modules get an adapter; the paper's choice is keys and values."""
    training: Training = Training(rate=0.02)
    """How the adapters are trained."""
    strength: float = 1.0
    """Factor on what is added to the base model's predictions; at 0 nothing is trained."""

    def __call__(self, subject: Subject, concept: Concept, found: Sequence[Subspace] = ()) -> Intervention:
        """`found` is not used.

        ValueError where the concept has no prompts to move, no anchor, or no select prompts to set the threshold by.
        """
        if self.watch < 1:
            raise ValueError(f"{self.name}: watch is {self.watch}; a walk is told by at least 1 of its steps")
        moved = moved_prompts(concept, self.sources, self.name)
        guide = guide_of(concept, moved, self.guide, self.name)
        lists = [
            [p for kind in kinds for p in concept.prompts(kind, "select")] for kinds in (self.sources, self.preserve)
        ]
        if self.threshold is None and not all(lists):
            missing = self.preserve if lists[0] else self.sources
            raise ValueError(
                f"{self.name}: concept {concept.name!r} has no select prompts in {', '.join(missing) or 'no list'} "
                "to set the threshold by; give a `threshold`"
            )
        student = Adapters(subject, beside(subject, self.roles), self.rank, self.training.seed)
        losses, threshold, accuracy = [], self.threshold or 0.0, None
        if self.strength:
            lessons = [Lesson(tuple(moved), same, lambda pool: apart(subject, pool, guide, -self.eta, self.name))]
            others = [prompt for kind in self.preserve for prompt in concept.prompts(kind, "fit")]
            lessons += keep(subject, others, self.training.retain, self.name)
            losses = teach(subject, student, lessons, self.training, self.name)
            if self.threshold is None:
                own, rest = (self._influences(subject, student, prompts) for prompts in lists)
                threshold, accuracy = dividing(own, rest)
        origin = made_by(self, subject, concept, loss=ends(losses), divided_at=threshold, told_apart=accuracy)
        action = Mixture(self, subject, student, threshold)
        return Intervention(self.name, concept.name, {action.site: action}, self.strength, origin)

    def _influences(self, subject: Subject, student: Adapters, prompts: Sequence[Prompt]) -> list[float]:
        """The adapters' influence at each of the first steps of the base model's walks for prompts."""
        count = self.training.pictures
        pool = walks(subject, evenly(prompts, count), count, self.training.sampling, self.training.seed + 500)
        firsts = pool.timesteps.unique(sorted=True)[-self.watch :]
        pool = pool.rows(torch.isin(pool.timesteps, firsts).nonzero()[:, 0])
        said = []
        for asked in (list(pool.prompts), [Prompt("")] * len(pool)):
            base = predictions(subject, pool, asked, self.name)
            with student.worn():
                said.append(size(predictions(subject, pool, asked, self.name) - base))
        return influence(*said).tolist()


def influence(prompt: Tensor, empty: Tensor) -> Tensor:
    """|ε_adapted(x, p) - ε(x, p)| / |ε_adapted(x, ∅) - ε(x, ∅)| (n,), from these norms; never below 1e-6."""
    return (prompt / empty.clamp(min=1e-12)).clamp(min=1e-6)


class Mixture:
    """(predictions, moment) -> what is added to them: (1 - w)(adapted - base) of every row, w by the row's walk."""

    def __init__(self, eraser: Unguide, subject: Subject, student: Adapters, threshold: float) -> None:
        self.eraser, self.subject, self.student, self.threshold = eraser, subject, student, threshold
        self.model, self.site = denoiser(subject, eraser.name), subject.sites("denoiser_out")[0]
        self.measured: dict[int, list[tuple[float, float]]] = {}
        """Per asked prompt of the walk under way, the two norms at each of its first steps."""
        self.last: int | None = None
        """The step of it that was met last; None outside a walk."""

    def __call__(self, x: Tensor, moment: Moment) -> Tensor | None:
        if moment.nested:
            return None
        # Another tap may have changed x, and w is for what the model says.
        base = x if self.subject.state.taps(self.site) == 1 else self.model.repredict(None, range(len(x)))
        change = self._adapted(None, range(len(x))) - base
        if moment.step is None or self.last is None or moment.step <= self.last:
            self.measured.clear()
        self.last = moment.step
        self._measure(change, moment)
        weights = [1 - self.weight(p) for p in moment.prompts]
        return torch.tensor(weights, device=x.device, dtype=x.dtype)[:, None, None, None] * change

    def weight(self, prompt: int) -> float:
        """w of the walk of a prompt that was asked for."""
        own, empty = (sum(part) for part in zip(*self.measured[prompt], strict=True))
        ratio = float(influence(torch.tensor(own), torch.tensor(empty)))
        return self.eraser.present if ratio > self.threshold else self.eraser.absent

    def _measure(self, change: Tensor, moment: Moment) -> None:
        rows = [i for i, branch in enumerate(moment.branches) if branch == "cond"]
        rows = [i for i in rows if len(self.measured.get(moment.prompts[i], ())) < self.eraser.watch]
        if not rows:
            return
        other = {moment.prompts[i]: i for i, branch in enumerate(moment.branches) if branch == "uncond"}
        if all(moment.prompts[i] in other for i in rows):
            empty = change[[other[moment.prompts[i]] for i in rows]]
        else:
            empty = self._of_empty(rows)
        for i, own, none in zip(rows, size(change[rows]).tolist(), size(empty).tolist(), strict=True):
            self.measured.setdefault(moment.prompts[i], []).append((own, none))

    def _of_empty(self, rows: Sequence[int]) -> Tensor:
        """The adapters' change of what is said under the empty prompt: without guidance nobody has asked for it."""
        condition = read(self.subject, [Prompt("")], self.eraser.name)
        condition = condition.rows(torch.zeros(len(rows), dtype=torch.long, device=condition.states.device))
        return self._adapted(condition, rows) - self.model.repredict(condition, rows)

    def _adapted(self, condition, rows: Sequence[int]) -> Tensor:
        with self.student.worn():
            return self.model.repredict(condition, rows)
