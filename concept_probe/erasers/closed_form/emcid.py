"""EMCID: rewrite a concept's memory in the text encoder's MLPs, several layers at once (arXiv 2403.13807)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from concept_probe.activations import read_states
from concept_probe.arguments import Count, SeedNumber
from concept_probe.erasers.closed_form.alignment import TokenPolicy
from concept_probe.erasers.closed_form.destinations import destinations_of, texts_of
from concept_probe.erasers.closed_form.key_values import solve_key_values, weight_of_solve
from concept_probe.erasers.closed_form.states import prompts_to_erase
from concept_probe.erasers.closed_form.value_offsets import Layers, Offsets, edited_layers, places_of
from concept_probe.erasers.eraser import TINY_SAMPLING, Eraser
from concept_probe.erasers.erasure.deltas import Delta, LowRank
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.erasure.parameters import address, dtype_of, find_parameter
from concept_probe.erasers.needs import Needs
from concept_probe.erasers.published import Published
from concept_probe.erasers.training.loop import descend, loss_at_ends
from concept_probe.erasers.training.replay import collect, predictions
from concept_probe.families import DiffusionSubject
from concept_probe.types import OTHER_KINDS, Concept, Kind, Prompt, Sampling, Subspace


@dataclass(frozen=True)
class Emcid(Eraser[DiffusionSubject, Edit]):
    """Find what the text encoder should write at the concept's tokens, then make its MLPs write it.

    >>> edit = Emcid(layers=(7, 8, 9, 10))(subject, concept)
    """

    name = "emcid"
    makes = "edit"
    on = "pictures"
    needs = Needs(anchor=True)
    aims = "prompts"
    solves = True
    origin = "published"
    authors = Published(
        {"layers": (7, 8, 9, 10), "policy": "last_subject", "decay": 5e-4, "lam": 10000.0, "lam_of_sum": True},
        apart="kept keys are of 100,000 captions, read once; offsets are clamped, and led to the other text's states too",
    )
    layers: tuple[int, ...] = ()
    """Layers of each text encoder whose MLPs are edited; empty: all that what is read depends on, but the last."""
    policy: TokenPolicy = "subject"
    """Which tokens are rewritten; the paper's is `last_subject`."""
    guide: str | None = None
    """What stands in for the concept; see `Uce`."""
    sources: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts (fit split) that are rewritten."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) whose keys are kept, all of their tokens."""
    prompts: Count = 16
    """How many of the concept's prompts are used at most, evenly spaced: each has its own offset to learn."""
    steps: Count = 100
    """Gradient steps of the offsets."""
    batch: Count = 4
    """Latents per step."""
    rate: float = 0.1
    """Adam's step, as a multiple of the root mean square of what the layer writes."""
    decay: float = 0.01
    """Weight of |δ|² / |what is written|² beside the error of the prediction, as a share of the gap to its goal."""
    pictures: Count = 4
    """Trajectories from noise to pictures of the concept whose latents the offsets are learned on."""
    sampling: Sampling = Sampling()
    """How these pictures are made."""
    lam: float = 0.3
    """λ: weight of kept keys against those of the concept."""
    seed: SeedNumber = 0
    """Of the pictures and of the order of training."""
    strength: float = 1.0
    """Factor on the change of the weights."""
    lam_of_sum: bool = False
    """Whether λ weighs the mean kept key against the sum of the concept's, as published, and not against their mean: it is then
    divided by their number."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(steps=24, batch=8, pictures=2, sampling=TINY_SAMPLING)

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Edit:
        """ValueError where the concept has no prompts to move or none to keep."""
        every = prompts_to_erase(concept, self.sources, self.name)
        prompts = every[:: -(-len(every) // self.prompts)]
        others = [prompt for kind in self.preserve for prompt in concept.prompts(kind, "fit")]
        if not others:
            raise ValueError(f"emcid: concept {concept.name!r} has no prompts in {', '.join(self.preserve)} to keep")
        layers = edited_layers(subject, self.layers)
        led = destinations_of(every, concept, self.guide, self.name)
        offsets, losses = self._distilled(subject, led, prompts, layers)
        deltas: dict[str, Delta] = {}
        gaps = {}
        for one in layers if self.strength else ():
            written, gap = self._written(subject, one, offsets, prompts, others)
            deltas |= {where: delta.scaled(self.strength) for where, delta in written.items()}
            gaps[one.streams[-1].component] = gap
        shares = {"loss": loss_at_ends(losses), "gap_left": gaps, "guides": texts_of({p: led[p] for p in prompts})}
        return self.edit(subject, concept, deltas, layers=[str(s) for one in layers for s in one.values], **shares)

    def _distilled(
        self,
        subject: DiffusionSubject,
        led: Mapping[Prompt, Prompt],
        prompts: Sequence[Prompt],
        layers: Sequence[Layers],
    ) -> tuple[Offsets, list[float]]:
        """Offsets at the last edited layer of each encoder that make the concept's prompts be drawn as their destinations."""
        offsets = Offsets(
            subject, [one.streams[-1] for one in layers], prompts, places_of(subject, prompts, self.policy)
        )
        pool = collect(subject, prompts, self.pictures, self.sampling, self.seed)
        goals = {p: predictions(subject, pool, [led[p]] * len(pool)) for p in prompts}
        own = predictions(subject, pool, pool.prompts)
        gap = float((own - torch.stack(list(goals.values()))).float().square().mean()) or 1.0

        def loss(step: int, generator: torch.Generator) -> Tensor:
            index = torch.randint(len(pool), (self.batch,), generator=generator)
            asked = torch.randint(len(prompts), (self.batch,), generator=generator).tolist()
            part = pool.rows(index)
            predicted = subject.predict(part.inputs, part.timesteps, offsets.conditions(asked))
            goal = torch.stack([goals[prompts[j]][i] for j, i in zip(asked, index.tolist(), strict=True)])
            return (predicted - goal).float().square().mean() / gap + self.decay * offsets.size()

        generator = torch.Generator().manual_seed(self.seed)
        losses = descend(offsets, loss, steps=self.steps, rate=self.rate, generator=generator, method=self.name)
        return offsets, losses

    def _written(
        self,
        subject: DiffusionSubject,
        layers: Layers,
        offsets: Offsets,
        prompts: Sequence[Prompt],
        others: Sequence[Prompt],
    ) -> tuple[dict[str, Delta], float]:
        """The edit of one encoder, first layer first, each closing its share of the gap that is still left."""
        end, goal = layers.streams[-1], offsets.goals()[layers.streams[-1]]
        places, base = offsets.places[layers.streams[-1]], subject.weight_hash()
        deltas: dict[str, Delta] = {}
        whole = None
        for i, (hidden, value) in enumerate(zip(layers.hidden, layers.values, strict=True)):
            with Edit(self.name, "", deltas, base).on(subject):
                seen = read_states(subject, prompts, [hidden, end])
                kept = read_states(subject, others, [hidden])[hidden].flatten(0, 1)
            wanted = goal - seen[end].double()[places.to(goal.device)]
            whole = whole or float(torch.linalg.matrix_norm(wanted))
            keys = seen[hidden][places.to(goal.device)]
            lam = weight_of_solve(self.lam, keys, of_sum=self.lam_of_sum)
            delta = solve_key_values(keys, wanted / (len(layers.values) - i), kept, lam)
            wide = dtype_of(find_parameter(subject.components, address(value)))
            deltas[address(value)] = LowRank(delta.u.to(wide), delta.v.to(wide))
        with Edit(self.name, "", deltas, base).on(subject):
            reached = read_states(subject, prompts, [end])[end].double()[places.to(goal.device)]
        return deltas, float(torch.linalg.matrix_norm(goal - reached)) / (whole or 1.0)
