"""What a search for words descends, read on pictures, and its gradient in the words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.attacks.search.slots import Slot, check_room
from concept_probe.attacks.search.vocabulary import Vocabulary
from concept_probe.families import DiffusionSubject
from concept_probe.types import Moment, Prompt, Site

WordGradients = dict[Site, Tensor]
"""Per token-embedding site (L, d): the gradient of the error in the embedding of each word."""


Goal = Callable[[Tensor, Sequence[int], Sequence[Prompt], torch.Generator], Tensor]
"""(latents (b, c, h, w), which slot stands by each, the prompts that fill those, source of chance) -> how far the
prompts are from what is wanted: a scalar with gradients."""


def denoised(subject: DiffusionSubject) -> Goal:
    """The denoising error of the latents under the prompts."""
    return lambda latents, _, prompts, generator: subject.denoising_loss(latents, prompts, generator)


@dataclass(frozen=True, eq=False)
class SearchObjective:
    """How far prompts with words in them are from a goal, read on pictures."""

    subject: DiffusionSubject
    latents: Tensor
    """(n, c, h, w), the attacker's pictures in the denoiser's units."""
    slots: Sequence[Slot]
    vocabulary: Vocabulary
    batch: int
    """Pictures per reading."""
    goal: Goal

    @classmethod
    def of(
        cls, subject: DiffusionSubject, images: Tensor, slots: Sequence[Slot], count: int, batch: int,
        vocabulary: Vocabulary, goal: Goal,
    ) -> SearchObjective:  # fmt: skip
        """For `count` words in `slots`. Raises ValueError where they are more than a text encoder reads."""
        with torch.no_grad():
            latents = subject.latents(images.to(subject.device, subject.dtype)) if len(images) else images
        check_room(subject, slots, count)
        return cls(subject, latents, slots, vocabulary, batch, goal)

    def read(self, ids: Tensor, generator: torch.Generator) -> float:
        """The error with these words, on a draw from `generator`."""
        with torch.no_grad():
            return float(self._loss(ids, self._draw(generator), generator))

    def gradients(self, ids: Tensor, generator: torch.Generator) -> WordGradients:
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
                for row, where in occurrences(read.pop(), words):
                    out[row, where] += zeros[site]
                return out

            return look

        inner = {replace(site, side="in"): keep for site in zeros}
        with tap(self.subject, {**inner, **{site: add(site) for site in zeros}}):
            yield


def occurrences(read: Tensor, words: Tensor) -> list[tuple[int, list[int]]]:
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


def word_gradients(vocabulary: Vocabulary, gradients: WordGradients) -> Tensor:
    """(L, v): the gradient of the error in how much of each word stands at each place, E_v · ∂L/∂e_i over encoders."""
    parts = [gradients[site] @ table.float().mT for site, table in vocabulary.tables.items()]
    return torch.stack([part.to(parts[0].device) for part in parts]).sum(0)
