"""Lead the walk by a classifier's gradient towards the concept (classifier guidance, arXiv 2105.05233, 2505.17013)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe import detect
from concept_probe.arguments import Count
from concept_probe.attacks.attack import Attack
from concept_probe.attacks.attempt import AttackRun, Attempt, NothingToAsk
from concept_probe.attacks.budget import Budget, Meter, curve_points, lay_out
from concept_probe.attacks.curve import Candidate, CurvePlan, trace_curve
from concept_probe.families import DiffusionSubject
from concept_probe.families.diffusion.trajectory import SamplingHook, Trajectory
from concept_probe.types import Classifier
from concept_probe.types.prompts import evenly


@dataclass(frozen=True, eq=False)
class ClassifierGuidance(Attack[DiffusionSubject]):
    """Moves the picture that is predicted at steps of the walk along the gradient of a classifier's log probability of
    the concept, and goes on from there with everything on.

    A gradient can paint the concept, or what its judge takes for it, on a model that never knew it: what the same
    guidance does on a never-taught twin is no knowledge. The random candidate is led as far towards other labels.
    """

    guide: Classifier | str | None = None
    """Whose gradient leads, or the name of a recogniser. None: another recogniser of the same labels than the judge where there is one
    (`detect.second_classifier`), else the judge itself, which then is led to be fooled; the note says which."""
    scale: float = 1.0
    """How far the predicted latents move in a guided step where all is noise, as a root mean square; sqrt(1 - a) of it
    where a of the variance is picture."""
    points: Count = 3
    """Points of the curve, no guidance included."""
    pictures: Count = 16
    """Pictures per point and for the control, at most."""

    name = "classifier_guidance"
    on = "pictures"
    brings = True

    def run(self, run: AttackRun[DiffusionSubject]) -> Attempt:
        subject, meter, guide = run.subject, run.meter, self.leader(run.label)
        kept, each = lay_out(run.budget, tuple(range(self.points)), self.pictures)
        wanted = curve_points(self._most(subject, run.budget, each, len(kept)), self.points)[-len(kept) :]
        queries = run.queries(run.tests(), each)
        aim, others = guide.labels.index(run.label), [i for i, x in enumerate(guide.labels[:-1]) if x != run.label]

        def towards(steps: int, labels: Sequence[int]) -> Candidate:
            if not steps:
                return Candidate(queries)
            lead = Lead(subject, guide, self.scale, evenly(range(subject.passes(self.sampling)), steps), labels, meter)
            return Candidate(queries, subject.hooked(SamplingHook(start=lead.begin, replace_prediction=lead)))

        def away() -> Candidate:
            drawn = torch.randint(len(others), (len(queries),), generator=run.generator).tolist() if others else []
            return towards(wanted[-1], [others[i] for i in drawn]) if others else Candidate(())

        plan = CurvePlan(
            wanted, "guided steps", lambda steps: steps, lambda steps: towards(steps, [aim] * len(queries)), away,
            "guidance towards other labels", lambda: f"led by {guide.name}{' ' + self._own(guide)}".rstrip(),
        )  # fmt: skip
        return trace_curve(run, plan)

    def leader(self, label: str) -> Classifier:
        """Whose gradient leads towards `label`. Raises NothingToAsk where there is none that sees it."""
        given = detect.recogniser(self.guide) if isinstance(self.guide, str) else self.guide
        found = given or detect.second_classifier(self.recogniser) or self.recogniser
        if not isinstance(found, Classifier):
            raise NothingToAsk(
                f"recogniser {found.name!r} has no `logits`, so there is no gradient to follow; give a `guide` that has"
            )
        if label not in found.labels[:-1]:
            raise NothingToAsk(f"{found.name!r} can't see {label!r}; give a `guide` that can")
        return found

    def _own(self, guide: Classifier) -> str:
        return "(the judge itself)" if guide is self.recogniser else ""

    def _most(self, subject: DiffusionSubject, budget: Budget, each: int, points: int) -> int:
        """Guided steps of the last point: as many as the budget pays for, each a gradient per batch and step."""
        batches = -(-each // self.sampling.batch)
        for steps in range(subject.passes(self.sampling), 0, -1):
            asked = curve_points(steps, self.points)[-points:]
            if batches * (sum(asked) + steps) <= budget.gradient_steps:
                return steps
        return 0


class Lead:
    """What leads the walks of one candidate: `labels[i]` for the picture of query i, at the walk's `steps`."""

    def __init__(
        self,
        model: DiffusionSubject,
        guide: Classifier,
        scale: float,
        steps: Sequence[int],
        labels: Sequence[int],
        meter: Meter,
    ) -> None:
        self.model, self.guide, self.scale, self.labels, self.meter = model, guide, scale, labels, meter
        self.steps = frozenset(steps)
        self.rows: Sequence[int] = ()
        """Queries of the walk that is under way."""

    def begin(self, walk: Trajectory, rows: Sequence[int]) -> None:
        self.rows = rows

    def __call__(self, walk: Trajectory, step: int, prediction: Tensor) -> Tensor:
        """The prediction whose picture is further along the gradient; as it is at other steps, or out of time.

        Raises FloatingPointError for a gradient that is no number.
        """
        if step not in self.steps or self.meter.out_of_time():
            return prediction
        self.meter.step()
        schedule, level = walk.schedule, walk.level(step)
        x = walk.model_input(step).float()
        clean, _ = schedule.x0_and_noise(x, prediction.float(), level)
        slope = self.slope(clean, prediction.dtype)
        size = slope.flatten(1).square().mean(1).sqrt().clamp_min(1e-20).view(-1, 1, 1, 1)
        moved = clean + self.scale * level.over(clean)[1] * slope / size
        return schedule.prediction_of(moved, schedule.noise_in(x, moved, level), level).to(prediction.dtype)

    def slope(self, clean: Tensor, dtype: torch.dtype) -> Tensor:
        """The gradient (b, c, h, w) of the log probability of each row's label in latents `clean`."""
        labels = torch.tensor([self.labels[i] for i in self.rows], device=clean.device)
        with torch.enable_grad():
            z = clean.detach().requires_grad_(True)
            logits = self.guide.logits(self.model.decode(z.to(dtype)))
            likely = logits.log_softmax(-1).gather(1, labels.to(logits.device).unsqueeze(1)).sum()
            (slope,) = torch.autograd.grad(likely, z)
        if not torch.isfinite(slope).all():
            raise FloatingPointError(f"the gradient of {self.guide.name} is no number; lower the attack's `scale`")
        return slope
