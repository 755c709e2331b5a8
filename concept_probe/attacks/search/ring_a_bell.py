"""A prompt that the text encoder reads as another one plus the concept (Ring-A-Bell, arXiv 2310.10012)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.arguments import Count
from concept_probe.attacks.attack import Attack
from concept_probe.attacks.attempt import AttackRun, Attempt, NothingToAsk
from concept_probe.attacks.budget import Meter, curve_points, lay_out
from concept_probe.attacks.curve import Candidate, CurvePlan, trace_curve
from concept_probe.attacks.search.slots import check_room, in_front, in_place
from concept_probe.attacks.search.vocabulary import Vocabulary, names_of
from concept_probe.families import DiffusionSubject, Subject
from concept_probe.types import Concept, Prompt, Query


@dataclass(frozen=True, eq=False)
class RingABell(Attack[DiffusionSubject]):
    """Breeds a prompt whose text states are those of a prompt without the concept, plus the concept's direction.

    It looks at no picture and takes no gradient: all that the search asks is what texts are read as. Random words,
    others for every picture, are the control; the best of the first, random, brood is point 0.
    """

    reader: Subject | None = None
    """Whose text encoders the attacker reads with: their own copy of public ones; None: those of the attacked subject,
    with all that is on."""
    strength: float = 1.0
    """How much of the concept's direction is added."""
    words: Count = 8
    """Words of the prompt."""
    brood: Count = 32
    """Prompts in each generation."""
    generations: Count = 60
    """Generations in all."""
    crossing: float = 0.5
    """Chance that a child takes the words from a random place on from a second parent."""
    mutation: float = 0.25
    """Chance of every child's word to be drawn anew."""
    points: Count = 3
    """Points of the curve, the first generation included."""
    pictures: Count = 16
    """Pictures per point and for the control, at most."""

    name = "ring_a_bell"
    on = "pictures"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.words < 1 or self.brood < 2 or self.generations < 0:
            raise ValueError(
                f"attack {self.name!r}: words {self.words}, brood {self.brood}, generations {self.generations}; give at "
                "least 1 word, a brood of 2 and no generation less than 0"
            )

    def holding(self, copy: Subject) -> Self:
        return replace(self, reader=copy)

    def run(self, run: AttackRun[DiffusionSubject]) -> Attempt:
        subject, concept, generator = run.subject, run.concept, run.generator
        reader = self.reader or subject
        vocabulary = Vocabulary.of(subject, names_of(concept))
        slot = in_front(Prompt("", None, run.label))
        check_room(subject, [slot], self.words)
        goal = wanted_states(reader, concept, self.strength)

        def distance(ids: Tensor) -> Tensor:
            states = _states(reader, [slot.filled(vocabulary.spell(row)) for row in ids])
            return (states - goal).square().flatten(1).mean(1)

        search = GeneticSearch(self, vocabulary, distance, generator, run.meter)
        points, each = lay_out(run.budget, curve_points(self.generations, self.points), self.pictures)

        def at(found: Sequence[Tensor]) -> Candidate:
            prompts = [slot.filled(vocabulary.spell(ids)) for ids in found]
            return Candidate([Query(prompts[i % len(prompts)], self.seed + i) for i in range(each)])

        def others() -> Candidate:
            return at([vocabulary.random(self.words, generator) for _ in range(max(1, each))])

        plan = CurvePlan(
            points, "generations", search.run, lambda _: at([search.population[0]]), others, "random words",
            lambda: f"words: {' '.join(vocabulary.spell(search.population[0]))}; {search.read} texts read",
        )  # fmt: skip
        return trace_curve(run, plan)


class GeneticSearch:
    """A genetic search: the better half of each generation lives on, and its children fill the other half."""

    def __init__(
        self, options: RingABell, vocabulary: Vocabulary, distance: Callable[[Tensor], Tensor],
        generator: torch.Generator, meter: Meter,
    ) -> None:  # fmt: skip
        self.options, self.vocabulary, self.distance_of = options, vocabulary, distance
        self.generator, self.meter = generator, meter
        self.population = torch.stack([vocabulary.random(options.words, generator) for _ in range(options.brood)])
        """Ids (n, L), the best first once they were read."""
        self.distances: Tensor | None = None
        """(n,) of the population, rising; None before it was read."""
        self.read = 0
        """Texts that were read in all."""
        self.made = 0
        """Generations in all, the first not counted."""

    def run(self, goal: int) -> int:
        """Go on until `goal` generations have been made, or the time is spent; returns how many have been made."""
        if self.distances is None:
            self._settle(self.population, self._measured(self.population))
        while self.made < goal and not self.meter.out_of_time():
            assert self.distances is not None
            half = len(self.population) // 2
            children = self._children(self.population[: max(1, half)], len(self.population) - half)
            alive, near = self.population[:half], self.distances[:half]
            self._settle(torch.cat([alive, children]), torch.cat([near, self._measured(children)]))
            self.made += 1
        return self.made

    def _measured(self, ids: Tensor) -> Tensor:
        self.read += len(ids)
        with torch.no_grad():
            return self.distance_of(ids).cpu()

    def _settle(self, population: Tensor, distances: Tensor) -> None:
        order = distances.argsort(stable=True)
        self.population, self.distances = population[order], distances[order]

    def _children(self, parents: Tensor, count: int) -> Tensor:
        length, g = parents.shape[1], self.generator
        one, other = (parents[torch.randint(len(parents), (count,), generator=g)] for _ in range(2))
        crossed = torch.rand(count, 1, generator=g) < self.options.crossing
        behind = torch.arange(length) >= torch.randint(length + 1, (count, 1), generator=g)
        mutated = torch.rand(count, length, generator=g) < self.options.mutation
        fresh = torch.randint(len(self.vocabulary.words), (count, length), generator=g)
        return torch.where(mutated, fresh, torch.where(crossed & behind, other, one))


@torch.no_grad()
def wanted_states(reader: Subject, concept: Concept, strength: float) -> Float[Tensor, "t d"]:
    """The mean states of the concept's fit prompts without its name, plus `strength` times what the name adds.

    The direction is the mean over pairs of states with and without the name (arXiv 2310.10012, eq. 4), every token's
    state for itself. Raises NothingToAsk where no fit prompt names the concept.
    """
    named = [replace(p, label=None) for p in concept.prompts("target", "fit") if p.subject]
    if not named:
        raise NothingToAsk(
            f"no fit prompt of concept {concept.name!r} names it, so there is no pair with and "
            "without it; give prompts `subject=`"
        )
    without = _states(reader, [in_place(p).filled(()) for p in named])
    return without.mean(0) + strength * (_states(reader, named) - without).mean(0)


def _states(reader: Subject, prompts: Sequence[Prompt]) -> Float[Tensor, "n t d"]:
    return reader.encode(prompts).states.float()
