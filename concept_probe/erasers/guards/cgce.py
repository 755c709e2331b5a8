"""CGCE: a classifier on text states sees the concept in a prompt, and its gradient leads the prompt out of its sight
(arXiv 2511.05865)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.arguments import Count
from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.intervention import Change, Intervention
from concept_probe.erasers.published import Published
from concept_probe.evaluation.auroc import auroc
from concept_probe.families import DiffusionSubject
from concept_probe.families.text.kinds import NAMED_KINDS
from concept_probe.find.directions.probes import LinearProbe, fit_probe
from concept_probe.find.directions.projection import DIRECTION_KINDS
from concept_probe.find.layout import has_tokens, token_mask
from concept_probe.find.rows import ConceptRows, RowQuery, concept_rows
from concept_probe.types import KINDS, Concept, Kind, Moment, Subspace


def refined(
    x: Float[Tensor, "n d"], probe: LinearProbe, *, goal: float, rate: float, steps: int
) -> Float[Tensor, "n d"]:
    """Descend each row's -log(1 - p), p the probability that `probe` gives it, until its logit is `goal` or less.

    A step is `rate` times the row's norm long, along the negative gradient, -p w; the last one ends at `goal`.
    """
    rows = x.detach().to(probe.weight)
    length = probe.weight.norm()
    along = probe.weight / length
    longest = rate * rows.norm(dim=-1)
    for _ in range(steps):
        left = (probe(rows) - goal) / length  # how far, along the gradient, the goal is
        if not (left > 0).any():
            break
        rows = rows - left.clamp(min=0).minimum(longest)[:, None] * along
    return rows.to(x)


@dataclass(frozen=True)
class Cgce(Eraser[DiffusionSubject, Intervention]):
    """Where a probe sees the concept in a prompt, change the prompt's states until it doesn't; other prompts stay.

    >>> guard = Cgce(goal=0.001)(subject, concept)
    """

    name = "cgce"
    makes = "guard"
    on = "pictures"
    aims = "prompts"
    origin = "published"
    authors = Published(read_in="nowhere")
    goal: float = 0.01
    """Probability of the concept at which a token is let go."""
    rate: float = 0.1
    """Length of a gradient step as a share of the token's norm."""
    steps: Count = 50
    """Largest number of gradient steps per prompt."""
    spared: float = 0.95
    """Share of other prompts (select split) that the probe must not see: how sure it has to be follows from it."""
    penalty: float = 10.0
    """Penalty on the probe's weights; see `find.fit_probe`. A large one makes it lean on all that tells the concept,
    a small one on the little that suffices."""
    sources: tuple[Kind, ...] = KINDS
    """Lists of prompts (fit split) that the probe learns from."""
    strength: float = 1.0
    """Factor on the change."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.goal < 1:
            raise ValueError(f"cgce: goal is {self.goal}; it is a probability between 0 and 1")

    @classmethod
    def tiny(cls) -> Self:
        return cls(spared=0.5)

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Intervention:
        """ValueError where the concept has no prompts to tell apart."""
        roles = [role for role in ("text_out", "text_pooled") if role in subject.roles()]
        actions, thresholds, scores = {}, {}, {}
        for site in (site for role in roles for site in subject.sites(role)):
            # Words before the subject know nothing of it yet; but who asks need not say which word is the subject.
            kinds = (DIRECTION_KINDS, NAMED_KINDS) if has_tokens(subject, site) else ((), ())
            fit = concept_rows(subject, concept, [site], "fit", RowQuery(kinds[0], self.sources))[site]
            held = concept_rows(subject, concept, [site], "select", RowQuery(kinds[1], self.sources))[site]
            probe = fit_probe(fit.x, fit.concept, penalty=self.penalty)
            seen, own = per_prompt(probe, held)
            least = float(seen[~own].quantile(self.spared))
            actions[site] = self._action(probe, least)
            thresholds[str(site)], scores[str(site)] = least, float(auroc(seen, own))
        return self.guard(concept, actions, thresholds=thresholds, auroc=scores)

    def _action(self, probe: LinearProbe, least: float) -> Change:
        goal = min(float(torch.logit(torch.tensor(self.goal))), least)

        def change(x: Tensor, moment: Moment) -> Tensor | None:
            near = LinearProbe(
                probe.weight.to(x.device, torch.float32), probe.bias.to(x.device, torch.float32), probe.loss
            )
            tokens = x if x.ndim == 3 else x[:, None]
            words = token_mask(tokens, moment, NAMED_KINDS) if x.ndim == 3 else None
            logits = near(tokens.detach())
            own = torch.ones_like(logits, dtype=torch.bool) if words is None else words[..., 0]
            asked = torch.tensor([branch == "cond" for branch in moment.branches], device=x.device)
            caught = asked & (logits.masked_fill(~own, -torch.inf).amax(1) > least)
            if not caught.any():
                return None
            where = own & caught[:, None]
            delta = torch.zeros_like(tokens)
            chosen = tokens[where].detach()
            delta[where] = refined(chosen, near, goal=goal, rate=self.rate, steps=self.steps) - chosen
            return delta.view_as(x)

        return change


def per_prompt(probe: LinearProbe, rows: ConceptRows) -> tuple[Tensor, Tensor]:
    """Largest logit of each prompt's rows (p,), and whether the prompt is the concept's (p,)."""
    logits = probe(rows.x)
    ids, where = rows.prompt.unique(return_inverse=True)
    seen = logits.new_full((len(ids),), -torch.inf).scatter_reduce(0, where, logits, "amax")
    own = torch.zeros(len(ids), dtype=torch.bool, device=where.device)
    own[where] = rows.concept
    return seen, own
