"""What searches for a prompt have in common: words whose denoising error of the attacker's pictures is low."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.attacks.attack import Attack, Denoiser, examples_of, label_of, lay_out, relabelled
from concept_probe.attacks.budget import Attempt, Budget, Meter
from concept_probe.attacks.curve import Candidate, Way, along
from concept_probe.attacks.search.vocabulary import Slot, Vocabulary, check_room, names_of
from concept_probe.families.progress import bars
from concept_probe.types import Concept, Moment, Prompt, Query, Site

if TYPE_CHECKING:
    from concept_probe.families import Subject

Slopes = dict[Site, Tensor]
"""Per token-embedding site (L, d): the gradient of the error in the embedding of each word."""
Step = Callable[[Tensor, Slopes], Tensor]
"""(ids (L,), slopes) -> ids (L,) to look at next."""
Goal = Callable[[Tensor, Sequence[int], Sequence[Prompt], torch.Generator], Tensor]
"""(latents (b, c, h, w), which slot stands by each, the prompts that fill those, source of chance) -> how far the
prompts are from what is wanted: a scalar with gradients."""


@dataclass(frozen=True, eq=False)
class HardPrompt(Attack):
    """Searches for words, by the gradient of the denoising error of the attacker's pictures through all that is on.

    Everything that is read while searching is a prompt that can be typed, so guards see it as they see any other.
    Of the words that were looked at, those are asked with whose error on one fixed draw is the lowest. Random words,
    others for every picture, are the control, and random words are where it starts.
    """

    words: int = 5
    """Words that are searched for."""
    points: int = 3
    """Points of the curve, the random start (0 steps) included."""
    pictures: int = 16
    """Pictures per point and for the control, at most."""
    batch: int = 8
    """Pictures per gradient step."""

    needs_examples: ClassVar[bool] = True
    brings: ClassVar[bool] = True
    on: ClassVar = "pictures"

    def __call__(self, subject: Subject, concept: Concept, budget: Budget) -> Attempt:
        meter, generator = Meter(budget), torch.Generator().manual_seed(self.seed)
        if self.words < 1:
            raise ValueError(f"attack {self.name!r}: words is {self.words}; give 1 or more")
        label = label_of(concept)
        fit = [self.slot(p) for p in relabelled(concept.prompts("target", "fit"), label)]
        test = [self.slot(p) for p in relabelled(concept.prompts("target", "test"), label)]
        examples = examples_of(concept, budget, self.name)
        meter.use_examples(len(examples))
        vocabulary = Vocabulary.of(subject, (*names_of(concept), *spread_among([*fit, *test])))
        error = Error.of(subject, examples, fit, self.words, self.batch, vocabulary, self.goal(subject, fit))
        hunt = Hunt(error, vocabulary.random(self.words, generator), self.stepper(vocabulary), generator, meter)
        points, each = lay_out(budget, self.points, self.pictures)

        def at(found: Sequence[Tensor]) -> Candidate:
            pairs = ((test[i % len(test)], vocabulary.spell(found[i % len(found)])) for i in range(each if test else 0))
            return Candidate([Query(s.filled(w), self.seed + i // len(test)) for i, (s, w) in enumerate(pairs)])

        def others() -> Candidate:
            return at([vocabulary.random(self.words, generator) for _ in range(max(1, each))])

        way = Way(
            points, "gradient steps", hunt.run, lambda _: at([hunt.best]), others, "random words",
            lambda: f"words: {' '.join(vocabulary.spell(hunt.best))}",
        )  # fmt: skip
        return along(self, subject, concept, budget, meter, way)

    @abstractmethod
    def slot(self, prompt: Prompt) -> Slot:
        """Where in a prompt of the concept the words stand."""

    @abstractmethod
    def goal(self, subject: Subject, slots: Sequence[Slot]) -> Goal:
        """What is descended. Raises TypeError for a subject that it can't be read of."""

    @abstractmethod
    def stepper(self, vocabulary: Vocabulary) -> Step:
        """A search, at its start."""


def denoised(subject: Subject) -> Goal:
    """The denoising error of the latents under the prompts. Raises TypeError for a subject that does not denoise."""
    if not isinstance(subject, Denoiser):
        raise TypeError(f"{subject.name!r} is no denoiser, so no prompt can be searched for with pictures")
    denoiser = subject
    return lambda latents, _, prompts, generator: denoiser.denoising_loss(latents, prompts, generator)


def spread_among(slots: Sequence[Slot]) -> tuple[str, ...]:
    """Words of prompts among which searched words are spread: one that stands there already could not be told apart."""
    return tuple(dict.fromkeys(w.lower() for s in slots if s.every for w in s.after.split()))


@dataclass(frozen=True, eq=False)
class Error:
    """How far prompts with words in them are from a goal, read on pictures."""

    subject: Subject
    latents: Tensor
    """(n, c, h, w), the attacker's pictures in the denoiser's units."""
    slots: Sequence[Slot]
    vocabulary: Vocabulary
    batch: int
    """Pictures per reading."""
    goal: Goal

    @classmethod
    def of(
        cls, subject: Subject, images: Tensor, slots: Sequence[Slot], count: int, batch: int, vocabulary: Vocabulary,
        goal: Goal,
    ) -> Error:  # fmt: skip
        """For `count` words in `slots`. Raises TypeError for a subject that does not denoise."""
        if not isinstance(subject, Denoiser):
            raise TypeError(f"{subject.name!r} is no denoiser, so no prompt can be searched for with pictures")
        with torch.no_grad():
            latents = subject.latents(images.to(subject.device, subject.dtype)) if len(images) else images
        check_room(subject, slots, count)
        return cls(subject, latents, slots, vocabulary, batch, goal)

    def read(self, ids: Tensor, generator: torch.Generator) -> float:
        """The error with these words, on a draw from `generator`."""
        with torch.no_grad():
            return float(self._loss(ids, self._draw(generator), generator))

    def slopes(self, ids: Tensor, generator: torch.Generator) -> Slopes:
        """The gradient in the words' embeddings, on a draw from `generator`.

        The words stay words: a tap adds zeros to their embeddings, and the gradient is that of the zeros.
        Raises FloatingPointError where it is no number.
        """
        tables = self.vocabulary.tables
        zeros = {
            site: torch.zeros(len(ids), table.shape[1], dtype=table.dtype, device=table.device, requires_grad=True)
            for site, table in tables.items()
        }
        drawn = self._draw(generator)
        with torch.enable_grad(), self._added(zeros, ids):
            loss = self._loss(ids, drawn, generator)
            found = torch.autograd.grad(loss, list(zeros.values()), materialize_grads=True)
        if not all(torch.isfinite(one).all() for one in (loss, *found)):
            raise FloatingPointError(f"the error or its gradient is no number (error {float(loss.detach())})")
        return {site: one.float() for site, one in zip(zeros, found, strict=True)}

    def _draw(self, generator: torch.Generator) -> tuple[Tensor, list[int]]:
        rows = torch.randint(len(self.latents), (self.batch,), generator=generator)
        return rows, torch.randint(len(self.slots), (self.batch,), generator=generator).tolist()

    def _loss(self, ids: Tensor, drawn: tuple[Tensor, list[int]], generator: torch.Generator) -> Tensor:
        rows, texts = drawn
        words = self.vocabulary.spell(ids)
        prompts = [self.slots[i].filled(words) for i in texts]
        return self.goal(self.latents[rows.to(self.latents.device)], texts, prompts, generator)

    @contextmanager
    def _added(self, zeros: dict[Site, Tensor], ids: Tensor) -> Iterator[None]:
        """`zeros[site]` (L, d) added wherever the words `ids` are read in their order, whoever has them read."""
        read: list[Tensor] = []  # token ids of the calls that are under way: a guard may encode prompts of its own

        def keep(x: Tensor, moment: Moment) -> None:
            read.append(x)

        def add(site: Site) -> Callable[[Tensor, Moment], Tensor]:
            words = self.vocabulary.ids[site][ids.to(self.vocabulary.ids[site].device)]

            def look(x: Tensor, moment: Moment) -> Tensor:
                out = x.clone()
                for row, where in hits(read.pop(), words):
                    out[row, where] += zeros[site]
                return out

            return look

        inner = {replace(site, side="in"): keep for site in zeros}
        with tap(self.subject, {**inner, **{site: add(site) for site in zeros}}):
            yield


def hits(read: Tensor, words: Tensor) -> list[tuple[int, list[int]]]:
    """Rows of `read` (b, t) that hold `words` (L,), and where: side by side, else spread out in their order.

    >>> hits(torch.tensor([[0, 5, 6, 9], [5, 0, 6, 9], [6, 5, 9, 9]]), torch.tensor([5, 6]))
    [(0, [1, 2]), (1, [0, 2])]
    """
    if read.shape[1] < len(words):
        return []
    together = (read.unfold(1, len(words), 1) == words).all(-1)
    out = [(row, list(range(start, start + len(words)))) for row, start in together.nonzero().tolist()]
    wanted = words.tolist()
    for row in (~together.any(1)).nonzero().flatten().tolist():
        where: list[int] = []
        for place, token in enumerate(read[row].tolist()):
            if len(where) < len(wanted) and token == wanted[len(where)]:
                where.append(place)
        if len(where) == len(wanted):
            out.append((row, where))
    return out


class Hunt:
    """Steps of a search, and the best words so far."""

    def __init__(self, error: Error, start: Tensor, step: Step, generator: torch.Generator, meter: Meter) -> None:
        self.error, self.step, self.generator, self.meter = error, step, generator, meter
        self.now = self.best = start
        """Ids (L,) that are looked at, and those that read best."""
        self.steps = 0
        """Made so far."""
        self.lowest: float | None = None
        """Error of the best words on the fixed draw; None before it was read."""
        self._fixed = int(torch.randint(2**31, (1,), generator=generator))
        self._seen: set[tuple[int, ...]] = set()

    def run(self, goal: int) -> int:
        """Go on until `goal` steps have been made in all, or the time is spent; returns how many have been made."""
        if not len(self.error.latents):
            return 0
        with bars() as bar:
            task = bar.add_task("prompt search", total=goal, completed=self.steps)
            while self.steps < goal and not self.meter.out_of_time():
                if self.lowest is None:
                    self._judge()
                self.meter.step()
                self.now = self.step(self.now, self.error.slopes(self.now, self.generator))
                self._judge()
                self.steps += 1
                bar.advance(task)
        return self.steps

    def _judge(self) -> None:
        key = tuple(self.now.tolist())
        if key in self._seen:
            return
        self._seen.add(key)
        found = self.error.read(self.now, torch.Generator().manual_seed(self._fixed))
        if self.lowest is None or found < self.lowest:
            self.best, self.lowest = self.now, found


def changes(vocabulary: Vocabulary, slopes: Slopes) -> Tensor:
    """(L, v): the gradient of the error in how much of each word stands at each place, E_v · ∂L/∂e_i over encoders."""
    parts = [slopes[site] @ table.float().mT for site, table in vocabulary.tables.items()]
    return torch.stack([part.to(parts[0].device) for part in parts]).sum(0)
