"""IRECE: where attention to the concept is high, disturb the latents between two steps (arXiv 2512.22877)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.activations.attention import attention_to_text
from concept_probe.arguments import Count
from concept_probe.erasers.eraser import TINY_SAMPLING, Eraser
from concept_probe.erasers.erasure.intervention import Between, Change, Intervention
from concept_probe.erasers.guards.naming import text_naming
from concept_probe.erasers.guards.requery import Requery
from concept_probe.erasers.published import Published
from concept_probe.families import DiffusionSubject
from concept_probe.find.rows import gather_prompts
from concept_probe.types import OTHER_KINDS, SUBJECT, Concept, Moment, Prompt, Query, Sampling, Subspace

if TYPE_CHECKING:
    from concept_probe.families.diffusion.trajectory import Trajectory


class Locator:
    """How much each place of the latents would attend to the concept's name, had that been asked for."""

    def __init__(self, subject: DiffusionSubject, text: str, method: str) -> None:
        self.subject, self.requery = subject, Requery(subject, text)
        kinds = subject.tokenise([Prompt(text, text)]).kinds[0]
        self.words = (kinds == SUBJECT).nonzero()[:, 0]

    @torch.no_grad()
    def __call__(self, rows: Sequence[int], size: tuple[int, int]) -> Float[Tensor, "n h w"]:
        """Attention to the name, mean over heads and layers, for rows of the trajectory's pass under way."""
        with self.subject.state.unedited(), attention_to_text(self.subject) as maps:
            self.requery(rows)
        each = [m[..., self.words.to(m.device)].sum(-1).mean(1) for m in maps]
        return torch.stack([laid_out(m.float(), size) for m in each]).mean(0)


def laid_out(patches: Float[Tensor, "n p"], size: tuple[int, int]) -> Float[Tensor, "n h w"]:
    """Patches of a picture with the sides' ratio of `size` as a map of that size."""
    height = round((patches.shape[1] * size[0] / size[1]) ** 0.5)
    square = patches.unflatten(1, (height, -1))[:, None]
    return F.interpolate(square, size, mode="bilinear", align_corners=False)[:, 0]


def disturbed(x: Float[Tensor, "n c h w"], noise: Tensor, share: float) -> Float[Tensor, "n c h w"]:
    """sqrt(1 - share) x + sqrt(share) s e, s the standard deviation of each row of x: its level stays what it is."""
    level = x.float().flatten(1).std(1).to(x).view(-1, 1, 1, 1)
    return (1 - share) ** 0.5 * x + share**0.5 * level * noise


@dataclass(frozen=True)
class Irece(Eraser[DiffusionSubject, Intervention]):
    """After a step, put fresh noise where the model, unedited, attends to the concept's name as if it were there.

    >>> guard = Irece(share=0.7)(subject, concept)
    >>> with edit.on(subject), guard.on(subject): ...                   # what it is made for: on top of an erasure
    """

    name = "irece"
    attention = "cross"
    makes = "guard"
    asks = True
    on = "pictures"
    aims = "latents"
    origin = "published"
    authors = Published(read_in="nowhere")
    text: str | None = None
    """The concept's name; None: the first one in its target prompts (fit split)."""
    share: float = 0.5
    """Share of the variance that fresh noise replaces after each step."""
    until: float = 0.6
    """Share of the trajectory, from its start, in which latents are disturbed; later noise would stay in the picture."""
    quantile: float = 0.95
    """Share of the places in pictures of other prompts (select split) that are left alone."""
    limit: Count | None = 8
    """Prompts of each such list that are drawn, one picture each; None: all."""
    sampling: Sampling = Sampling()
    """The trajectories that the quantile is of."""
    strength: float = 1.0
    """Factor on the disturbance."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(quantile=0.5, limit=2, sampling=TINY_SAMPLING)

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Intervention:
        """ValueError where the concept has no name, or no other prompts to compare with."""
        text = text_naming(concept, None, self.name).split(", ")[0] if self.text is None else self.text
        locator = Locator(subject, text, self.name)
        floors = self._floors(subject, concept, locator)
        region = Region(locator, floors, self)
        site = subject.sites("denoiser_out")[0]
        rounded = {str(t): round(f, 5) for t, f in floors.items()}
        return self.guard(concept, {site: region.see}, region.disturb, options={"text": text}, floors=rounded)

    def _floors(self, subject: DiffusionSubject, concept: Concept, locator: Locator) -> dict[float, float]:
        """Per timestep, the attention that a share `quantile` of the places in other prompts' pictures stay under."""
        others = [p for kind, p in gather_prompts(concept, "select", limit=self.limit) if kind in OTHER_KINDS]
        maps: dict[float, list[Tensor]] = {}

        def look(x: Tensor, moment: Moment) -> None:
            rows = moment.conditional
            if rows and not moment.nested:
                found = locator(rows, (x.shape[-2], x.shape[-1]))
                maps.setdefault(moment.timestep or 0, []).append(found.flatten())

        site = subject.sites("denoiser_out")[0]
        with torch.no_grad(), tap(subject, {site: look}):
            for start in range(0, len(others), self.sampling.batch):
                part = others[start : start + self.sampling.batch]
                subject.run_to([site], [Query(p, start + i) for i, p in enumerate(part)], self.sampling)
        return {t: _quantile(torch.cat(found), self.quantile) for t, found in maps.items()}


def _quantile(values: Tensor, share: float) -> float:
    return float(values.sort().values[min(int(share * len(values)), len(values) - 1)])


class Region:
    """Where the concept was seen in the step that was made last, and what is done there."""

    def __init__(self, locator: Locator, floors: dict[float, float], options: Irece) -> None:
        self.locator, self.floors, self.options = locator, floors, options
        self.seen: Tensor | None = None

    @property
    def see(self) -> Change:
        def change(x: Tensor, moment: Moment) -> None:
            rows = moment.conditional
            if moment.nested or moment.step is None or not rows:
                return
            at = min(self.floors, key=lambda t: abs(t - (moment.timestep or 0)))
            self.seen = self.locator(rows, (x.shape[-2], x.shape[-1])) > self.floors[at]

        return change

    @property
    def disturb(self) -> Between:
        def between(trajectory: Trajectory, step: int) -> Tensor | None:
            seen, self.seen = self.seen, None
            if seen is None or step >= self.options.until * len(trajectory.timesteps) or not seen.any():
                return None
            # From the trajectory's own seeds, but not from its sources: a scheduler that draws from them must not notice.
            drawn = [_noise(trajectory.latents.shape[1:], source.initial_seed(), step) for source in trajectory.sources]
            new = disturbed(trajectory.latents, torch.stack(drawn).to(trajectory.latents), self.options.share)
            return torch.where(seen[:, None], new - trajectory.latents, 0)

        return between


def _noise(shape: Sequence[int], seed: int, step: int) -> Tensor:
    generator = torch.Generator().manual_seed((seed * 1_000_003 + step + 1) % 2**63)
    return torch.randn(tuple(shape), generator=generator)
