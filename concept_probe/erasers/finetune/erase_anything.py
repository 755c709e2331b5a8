"""EraseAnything: in a joint attention, adapt what the text asks and what it is found by (arXiv 2412.20413)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from concept_probe.arguments import Count, Nonnegative
from concept_probe.erasers.closed_form.states import prompts_to_erase
from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.finetune.distillation import (
    TINY_TRAINING,
    Training,
    distillation_loss,
    distilled_edit,
    latent_by_latent,
)
from concept_probe.erasers.finetune.negative_guidance import GuidanceBase, negative_guidance_term
from concept_probe.erasers.finetune.parts import weights_at
from concept_probe.erasers.published import Published
from concept_probe.erasers.training.joint_attention import attention_to_subjects
from concept_probe.erasers.training.loop import loss_at_ends
from concept_probe.erasers.training.replay import encode_distinct
from concept_probe.erasers.training.trainable import LowRankAdapters
from concept_probe.families.diffusion.dit.subject import DitSubject
from concept_probe.types import OTHER_KINDS, Concept, Kind, Prompt, Query, Sampling, Subspace, evenly

TEXT_ROLES = ("joint_text_query", "joint_text_key")
"""Roles of what is adapted: the projections that add the text's queries and keys to those of the image."""


def reverse_contrast(synonyms: Tensor, others: Tensor, temperature: float) -> Tensor:
    """The mean of log[exp(s / τ) / (exp(s / τ) + Σ_k exp(o_k / τ))], a scalar that falls as synonyms get less like.

    `synonyms` (n,) are the target's cosines s to a synonym, `others` (k, n) those to unrelated words.
    """
    logits = torch.cat([synonyms[None], others]) / temperature
    return (logits[0] - logits.logsumexp(0)).mean()


def mean_cosine_of_maps(maps: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    """Cosines (k, n), the mean over attentions: each attention's `maps` (n, patches) to `others` (k · n, patches)."""
    pairs = zip(maps, others, strict=True)
    return torch.stack([torch.cosine_similarity(x, y.unflatten(0, (-1, len(x))), -1) for x, y in pairs]).mean(0)


@dataclass(frozen=True)
class EraseAnything(Eraser[DitSubject, Edit]):
    """Adapt the text's own queries and keys: steps that erase the concept, in turns with steps that keep what is unrelated.

    >>> edit = EraseAnything(rank=8, attended=2.0)(subject, concept)
    """

    name = "erase_anything"
    makes = "edit"
    on = "pictures"
    aims = "to_empty"
    origin = "published"
    authors = Published(
        {"attended": 0.001, "training": latent_by_latent(200, 1e-3, sampling=Sampling(28, 3.0), retain=0.1)},
        apart="attention is summed up, not a share; unrelated words are a language model's; AdamW",
    )
    attention = "joint"
    rank: Count = 8
    """Rank of each adapter."""
    eta: float = 1.0
    """η: how far past its base the concept's prompt is led; see `Esd`."""
    base: GuidanceBase = "empty"
    """What that is: the `empty` prompt, or the concept's `anchor`; see `Esd`."""
    attended: Nonnegative = 1.0
    """λ₂: weight of the share of patches' attention that falls on the subject's tokens."""
    contrast: Nonnegative = 0.1
    """λ₄: weight of the reverse self-contrastive loss; 0: there is none."""
    temperature: Nonnegative = 0.07
    """τ of that loss, above 0."""
    others: Count = 3
    """K: how many unrelated words a step compares the target with."""
    sources: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts (fit split) that are erased."""
    synonyms: tuple[Kind, ...] = ("target", "paraphrases")
    """Lists of prompts (fit split) whose subjects count as synonyms of the target's."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split): their pictures are kept, their subjects are the unrelated words."""
    training: Training = Training(steps=240, rate=0.02, refresh=40)
    """How it is trained; `retain` is λ₃, the weight of the flow loss, and `refresh` counts the steps that erase."""
    strength: float = 1.0
    """Factor on the adapters; at 0 nothing is trained."""

    @classmethod
    def tiny(cls) -> Self:
        # Prompts move what a random model predicts by little, so ESD's loss is small beside the others.
        training = replace(TINY_TRAINING, steps=24, rate=0.1, retain=0.1)
        return cls(attended=0.05, contrast=0.001, training=training)

    def make(self, subject: DitSubject, concept: Concept, found: tuple[Subspace, ...]) -> Edit:
        """ValueError where no prompt in `sources` names its subject, or no other prompt does that a contrast needs."""
        if not self.temperature:
            raise ValueError(f"{self.name}: temperature is 0; it is above 0 (0.07 is usual)")
        student = LowRankAdapters(subject, weights_at(subject, TEXT_ROLES), self.rank, self.training.seed)
        prompts = _Prompts.of(self, concept)
        levels = TwoLevels(self, subject, concept, student, prompts) if self.strength else None
        also = None if levels is None else levels.loss
        edit = distilled_edit(self, subject, concept, student, [], self.training, self.strength, also)
        if levels is None:
            return edit
        told = {"loss": levels.erased, "keeping": levels.kept_losses, "attended": levels.attended}
        return replace(edit, made_by={**edit.made_by, **{name: loss_at_ends(values) for name, values in told.items()}})


@dataclass(frozen=True)
class _Prompts:
    """Fit prompts of a concept, by what they are for."""

    moved: tuple[Prompt, ...]
    named: tuple[Prompt, ...]
    """Those of `moved` that name their subject."""
    synonyms: tuple[Prompt, ...]
    kept: tuple[Prompt, ...]
    unrelated: tuple[Prompt, ...]
    """Those of `kept` that name their subject."""

    @classmethod
    def of(cls, eraser: EraseAnything, concept: Concept) -> Self:
        def among(kinds: Sequence[Kind]) -> tuple[Prompt, ...]:
            return tuple(prompt for kind in kinds for prompt in concept.prompts(kind, "fit"))

        def named(prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
            return tuple(prompt for prompt in prompts if prompt.subject)

        moved, kept = tuple(prompts_to_erase(concept, eraser.sources, eraser.name)), among(eraser.preserve)
        out = cls(moved, named(moved), named(among(eraser.synonyms)), kept, named(kept))
        lists = {"sources": out.named, "synonyms": out.synonyms, "preserve": out.unrelated}
        for option, prompts in list(lists.items())[: 3 if eraser.contrast else 1]:
            if not prompts:
                mend = "" if option == "sources" else ", or do without the contrast (contrast=0)"
                raise ValueError(
                    f"{eraser.name}: no prompt of {concept.name!r} in {', '.join(getattr(eraser, option)) or 'no list'} (fit split) "
                    f"names its subject, by whose tokens attention is told; name lists in `{option}` whose prompts do{mend}"
                )
        return out


class TwoLevels:
    """The losses of both levels in turn; and, step by step, what each was, and how much of the attention fell on the subject."""

    def __init__(
        self, eraser: EraseAnything, subject: DitSubject, concept: Concept, student: LowRankAdapters, prompts: _Prompts
    ) -> None:
        """Trajectories, targets and pictures are made here, by the frozen subject."""
        self.eraser, self.subject, self.student, self.prompts = eraser, subject, student, prompts
        training = eraser.training
        self.erased: list[float] = []
        self.kept_losses: list[float] = []
        self.attended: list[float] = []
        term = negative_guidance_term(subject, concept, prompts.moved, eraser.eta, eraser.base, eraser.name)
        self._esd = distillation_loss(subject, student, [term], training)
        self.own = self._pictures(prompts.named) if eraser.contrast else None
        self.kept = self._pictures(prompts.kept) if training.retain and prompts.kept else None

    def loss(self, step: int, generator: torch.Generator) -> Tensor:
        """That of the upper level at even steps, of the lower one at odd ones; of the upper one alone where there is no other."""
        alone = self.own is None and self.kept is None
        erases = alone or step % 2 == 0
        loss = self.erasing(step if alone else step // 2, generator) if erases else self.keeping(generator)
        (self.erased if erases else self.kept_losses).append(float(loss.detach()))
        return loss

    def erasing(self, step: int, generator: torch.Generator) -> Tensor:
        """ESD's loss, and λ₂ times the share of attention that falls on the subject's tokens."""
        with attention_to_subjects(self.subject) as shares:
            esd = self._esd(step, generator)
        attended = torch.stack([share.mean() for share in shares]).mean()
        self.attended.append(float(attended.detach()))
        return esd + self.eraser.attended * attended

    def keeping(self, generator: torch.Generator) -> Tensor:
        """λ₃ times the flow loss of pictures of other prompts, and λ₄ times the reverse contrast."""
        terms = []
        if self.kept is not None:
            latents, prompts = self._drawn(self.kept, generator)
            retain = self.eraser.training.retain
            terms.append(retain * self.subject.denoising_loss(latents, prompts, generator))
        if self.own is not None:
            terms.append(self.eraser.contrast * self.contrast(*self._drawn(self.own, generator), generator))
        return torch.stack(terms).sum()

    def contrast(self, latents: Tensor, prompts: Sequence[Prompt], generator: torch.Generator) -> Tensor:
        """The reverse contrast at pictures (n, ...) of the concept with noise, and at the same ones for all other words.

        Where the adapted subject looks for the concept's word is compared with where the frozen one looks for others.
        """
        x, timesteps, _ = self.subject.schedule.training_pair(latents, generator)
        alike = [self._one(self.prompts.synonyms, generator) for _ in prompts]
        order = torch.randperm(len(self.prompts.unrelated), generator=generator)[: self.eraser.others].tolist()
        unlike = [self.prompts.unrelated[i] for i in order for _ in prompts]
        own = self._maps(x, timesteps, prompts)
        with self.student.reference(), torch.no_grad():
            times = 1 + len(order)
            frozen = self._maps(x.repeat(times, 1, 1, 1), timesteps.repeat(times), [*alike, *unlike])
        cosines = mean_cosine_of_maps(own, frozen)
        return reverse_contrast(cosines[0], cosines[1:], self.eraser.temperature)

    def _maps(self, x: Tensor, timesteps: Tensor, prompts: Sequence[Prompt]) -> list[Tensor]:
        with attention_to_subjects(self.subject) as shares:
            self.subject.predict(x, timesteps, encode_distinct(self.subject, prompts))
        return list(shares)

    def _pictures(self, prompts: Sequence[Prompt]) -> tuple[Tensor, list[Prompt]]:
        """Latents (n, ...) of the frozen subject's pictures of these prompts in turn, and what each is of."""
        training = self.eraser.training
        chosen = evenly(prompts, training.pictures)
        asked = [chosen[i % len(chosen)] for i in range(training.pictures)]
        queries = [Query(prompt, training.seed + i) for i, prompt in enumerate(asked)]
        return self.subject.sample(queries, training.sampling), asked

    def _drawn(self, pictures: tuple[Tensor, list[Prompt]], generator: torch.Generator) -> tuple[Tensor, list[Prompt]]:
        latents, prompts = pictures
        index = torch.randint(len(prompts), (self.eraser.training.batch,), generator=generator)
        return latents[index.to(latents.device)], [prompts[i] for i in index.tolist()]

    def _one(self, prompts: Sequence[Prompt], generator: torch.Generator) -> Prompt:
        return prompts[int(torch.randint(len(prompts), (), generator=generator))]
