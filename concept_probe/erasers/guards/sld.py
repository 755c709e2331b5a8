"""Safe latent diffusion: guidance that also leads away from the concept where the prompt leads to it (arXiv 2211.05105)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.intervention import Change, Intervention
from concept_probe.erasers.guards.naming import text_naming
from concept_probe.erasers.guards.requery import Requery
from concept_probe.erasers.published import Published
from concept_probe.families import DiffusionSubject
from concept_probe.types import Concept, Moment, Subspace


def safety_term(
    prompt: Float[Tensor, "b c h w"],
    concept: Float[Tensor, "b c h w"],
    empty: Float[Tensor, "b c h w"],
    *,
    scale: float,
    threshold: float,
) -> Float[Tensor, "b c h w"]:
    """μ (ε_s - ε_∅) with μ = min(1, |s (ε_p - ε_s)|) where ε_p - ε_s < λ, else 0, element by element."""
    gap = prompt - concept
    weight = (scale * gap).abs().clamp(max=1.0)
    return torch.where(gap < threshold, weight, 0.0) * (concept - empty)


def warming_up(moment: Moment, until: float) -> bool:
    """Whether a pass is one of the warm-up, whose timesteps lie above `until`.

    Each of these timesteps stands for one pass of the warm-up: where a scheduler repeats a few of them to get going, the
    warm-up has no more passes for that, and ends at an earlier timestep.
    """
    if (moment.timestep or 0) <= until:
        return False
    times = moment.timesteps or ()
    distinct = set(times)
    if moment.step is None or len(times) >= 1.5 * len(distinct):  # of second order: every step is of two passes
        return True
    return moment.step < sum(t > until for t in distinct)


@dataclass(frozen=True)
class Sld(Eraser[DiffusionSubject, Intervention]):
    """Subtract from the prompt's prediction what leads to the concept; defaults are those of its strong setting.

    >>> guard = Sld(scale=5000, warmup=0.0, threshold=1.0)(subject, concept)      # the strongest setting
    """

    name = "sld"
    makes = "guard"
    asks = True
    on = "pictures"
    aims = "text"
    leads_by_guidance = True
    origin = "published"
    authors = Published(apart="four settings were published; this is the strong one")
    text: str | None = None
    """What leads to the concept; None: the names in its target prompts (fit split), joined by commas."""
    scale: float = 2000.0
    """s: how soon a difference between prompt and concept counts whole."""
    threshold: float = 0.025
    """λ: an element counts where the prompt's prediction exceeds the concept's by less."""
    warmup: float = 0.14
    """δ: share of the trajectory, from its start, in which nothing is subtracted; momentum is gathered all the while.
    Where a scheduler asks once more for one of its timesteps, as PNDM does, that pass counts too, as in the paper's code."""
    momentum: float = 0.5
    """s_m: weight of the momentum."""
    decay: float = 0.7
    """β_m: share of the momentum that is kept from step to step."""
    strength: float = 1.0
    """Factor on what is subtracted."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(warmup=0.0, threshold=1.0)

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Intervention:
        """ValueError where the concept has no name."""
        text = text_naming(concept, self.text, self.name)
        site = subject.sites("denoiser_out")[0]
        return self.guard(concept, {site: self._action(Requery(subject, text))}, options={"text": text})

    def _action(self, requery: Requery) -> Change:
        gathered: dict[int, Tensor] = {}  # momentum per asked prompt of the trajectory under way; step 0 starts anew
        highest: list[float] = [0]  # the first timestep of a whole trajectory
        last = [-1]  # step before; a trajectory that leaves out steps begins with another one than 0

        def change(x: Tensor, moment: Moment) -> Tensor | None:
            if moment.step is None or moment.nested:
                return None
            cond = moment.conditional
            uncond = {moment.prompts[i]: i for i, branch in enumerate(moment.branches) if branch == "uncond"}
            if not cond or any(moment.prompts[i] not in uncond for i in cond):
                return None  # without guidance there is nothing to lead away from
            if moment.step == 0 or moment.step <= last[0]:
                gathered.clear()
            if moment.step == 0:
                highest[0] = moment.timestep or 0
            elif not highest[0]:
                highest[0] = requery.subject.schedule.train_timesteps
            last[0] = moment.step
            predicted = requery(cond)
            empty = x[[uncond[moment.prompts[i]] for i in cond]]
            term = safety_term(x[cond], predicted, empty, scale=self.scale, threshold=self.threshold)
            before = torch.stack([gathered.get(moment.prompts[i], torch.zeros_like(x[0])) for i in cond])
            term = term + self.momentum * before
            after = self.decay * before + (1 - self.decay) * term
            gathered.update({moment.prompts[i]: after[j] for j, i in enumerate(cond)})
            if warming_up(moment, (1 - self.warmup) * highest[0]):
                return None
            delta = torch.zeros_like(x)
            delta[cond] = -term
            return delta

        return change
