"""CRISP: adapters under which features of the concept no longer fire on its texts (arXiv 2508.13650)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from concept_probe.activations import read_site
from concept_probe.arguments import Count
from concept_probe.erasers.ablation.found import Dictionary, dictionaries_of
from concept_probe.erasers.erasure.deltas import Delta
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.needs import Needs
from concept_probe.erasers.published import Published
from concept_probe.erasers.training.loop import DrawnLoss
from concept_probe.erasers.training.trainable import LowRankAdapters, Student
from concept_probe.erasers.unlearning.activations import after_first_token, retain_activations
from concept_probe.erasers.unlearning.answer_sets import batch_rows, texts_with_answers
from concept_probe.erasers.unlearning.retention import RetainLoss, Retention
from concept_probe.erasers.unlearning.trainer import Trainer, block_matrices
from concept_probe.families import CausalLMSubject
from concept_probe.types import OTHER_KINDS, Concept, Kind, Prompt, Site, SparseCoder, Subspace

SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Matrices of a block of Llama or Gemma, all of which the authors' adapters stand beside."""


@dataclass(frozen=True)
class Crisp(Trainer):
    """Salient features are suppressed where the concept's texts are read; elsewhere hidden states and answers stay.

    >>> edit = Crisp(count=8)(subject, concept, find_features(sae, subject, concept))
    """

    name = "crisp"
    needs = Needs(found="features")
    aims = "prompts"
    origin = "published"
    authors = Published(
        {"count": 10, "rank": 4, "modules": SEVEN, "batch": 1, "counts": True},
        apart="parts are weighed 0.01 and 0.99 and are not relative to their size before; AdamW at 1e-5 for every entry",
    )
    features: Literal["salient", "found"] = "salient"
    """Which are suppressed: `salient`, those that fire on the concept's texts and not on others (fit split), whichever
    were found; `found`, those that were."""
    count: int = 16
    """Salient features per autoencoder, at most."""
    ratio: float = 3.0
    """A salient feature's mean value on the concept's texts is at least so many times that on others."""
    hold: float = 10.0
    """Weight of the part that keeps hidden states of other texts at the autoencoders' sites; at 0 there is none."""
    retain: float = 1.0
    """Weight of the part of the loss that keeps the model's speech; at 0 there is none."""
    keep: RetainLoss = "kl"
    """What keeps the model's speech: `nll`, likelihood of right answers to other prompts; `kl`, divergence of the next
    token from the reference's."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) that are kept, and that salient features do not fire on."""
    sources: tuple[Kind, ...] = ("target", "paraphrases")
    """Lists of the concept's prompts (fit split) that are read, with their answers where they have some."""
    rank: Count = 8
    """Rank of the adapters beside each matrix."""
    modules: tuple[str, ...] = ()
    """Last names of the matrices that are trained, such as `q_proj`; none: down projections. Those of blocks above the
    last autoencoder are left alone."""
    counts: bool = False
    """Whether salience counts tokens and sums values, as in the authors' code, and not shares and means of them: right where
    both sides are as many tokens."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(steps=12, batch=4, rate=0.05, features="found")

    def make(self, subject: CausalLMSubject, concept: Concept, found: tuple[Subspace, ...]) -> Edit:
        """`found`: features of `find_features` with their autoencoders, over `resid` or `mlp_out`.

        Raises ValueError for an autoencoder of another site or width, where no feature is salient, or where there is
        nothing to read or keep; FloatingPointError for a loss that is no number. The subject has its own bytes in every
        case.
        """
        dictionaries = dictionaries_of(subject, found, self.name)
        deltas: dict[str, Delta] = {}
        losses: list[float] = []
        chosen: dict[str, list[int]] = {}
        if self.strength:
            own, others = texts_with_answers(concept, self.sources), texts_with_answers(concept, self.preserve)
            if not own or not others:
                raise ValueError(
                    f"crisp: {concept.name!r} needs fit prompts in {', '.join(self.sources)}, found {len(own)}, and in "
                    f"{', '.join(self.preserve)} to compare with, found {len(others)}"
                )
            aims = [self.chosen(subject, one, own, others) for one in dictionaries]
            chosen = {str(d.codec.site): aim for d, aim in zip(dictionaries, aims, strict=True)}
            student = LowRankAdapters(subject, self.sites(subject, dictionaries), self.rank, self.seed)
            with torch.no_grad():
                retention = Retention(self.retain, self.keep, self.preserve, self.batch)
                terms = list(retention.terms(subject, concept, self.name))
                for one, aim in zip(dictionaries, aims, strict=True):
                    terms += self.terms(subject, student, one, aim, own, others)
            deltas, losses = self.train(student, terms)
        return self.edit(subject, concept, deltas, suppressed=chosen, loss=losses)

    def sites(self, model: CausalLMSubject, dictionaries: Sequence[Dictionary]) -> tuple[Site, ...]:
        """The matrices that are trained: those that the autoencoders can see the effect of."""
        blocks = model.layout.blocks[: max(d.block for d in dictionaries) + 1]
        inside = tuple(b.block + "." for b in blocks)
        return tuple(s for s in block_matrices(model, self.modules, self.name) if s.path.startswith(inside))

    def chosen(
        self, model: CausalLMSubject, one: Dictionary, own: Sequence[Prompt], others: Sequence[Prompt]
    ) -> list[int]:
        """The features of one autoencoder that are suppressed. Raises ValueError where none is salient."""
        if self.features == "found":
            return one.features
        salient = self._salient(*(firing_sums(model, one.codec, texts) for texts in (own, others)))
        if not salient:
            raise ValueError(
                f"crisp: no feature over {one.codec.site} fires more often on the concept's texts than on others and "
                f"{self.ratio} times as strongly; lower `ratio`, or take features='found'"
            )
        return salient

    def _salient(self, own: FiringSums, others: FiringSums) -> list[int]:
        if self.counts:
            more = own.fires - others.fires
            first = more.topk(min(10 * self.count, len(more))).indices
            return first[own.total[first] >= self.ratio * (others.total[first] + 1)][: self.count].tolist()
        strong = own.total / max(own.tokens, 1) >= self.ratio * (others.total / max(others.tokens, 1))
        more = (own.fires / max(own.tokens, 1) - others.fires / max(others.tokens, 1)).where(strong, -1.0)
        best = more.topk(min(self.count, len(more)))
        return best.indices[best.values > 0].tolist()

    def terms(
        self, model: CausalLMSubject, student: Student, one: Dictionary, aim: Sequence[int], own: Sequence[Prompt],
        others: Sequence[Prompt],
    ) -> list[DrawnLoss]:  # fmt: skip
        """Suppression at one autoencoder, which begins at 1, and what holds its site. Called outside the student."""
        site, features = one.codec.site, torch.tensor(list(aim))
        x, read = read_site(model, site, own)
        before = float(activity(one.codec, x, read, features))
        if not before > 0:
            raise ValueError(f"crisp: features {list(aim)} over {site} do not fire on any of the concept's fit texts")
        norm = float(torch.linalg.vector_norm(x[after_first_token(read)].float(), dim=-1).mean())

        def suppress(generator: torch.Generator) -> Tensor:
            x, read = read_site(model, site, [own[i] for i in batch_rows(len(own), self.batch, generator)])
            return activity(one.codec, x, read, features) / before

        stay = retain_activations(model, student, site, others, self.batch, self.hold / norm**2)
        return [suppress, stay] if self.hold else [suppress]


def activity(codec: SparseCoder, x: Tensor, read: Tensor, features: Tensor) -> Tensor:
    """Sum of the values of `features` at a token (b, t, d), mean over tokens that are `read` (b, t) but first ones."""
    codes = codec.encode(x[after_first_token(read)])
    ours = torch.isin(codes.indices, features.to(codes.indices.device))
    return torch.where(ours, codes.values, 0).sum(-1).mean()


@dataclass(frozen=True)
class FiringSums:
    """Over the tokens of some texts."""

    fires: Tensor
    """(f,) at how many each feature fires, float64"""
    total: Tensor
    """(f,) sum of its values, float64"""
    tokens: int


@torch.no_grad()
def firing_sums(model: CausalLMSubject, codec: SparseCoder, texts: Sequence[Prompt], batch: int = 32) -> FiringSums:
    """Where each feature fires, and how strongly, over the texts' tokens.

    First tokens are left out: attention rests on them in any text, and their activations are like no others.
    """
    fires = total = torch.zeros(codec.width, dtype=torch.float64)
    count = 0
    for start in range(0, len(texts), batch):
        x, read = read_site(model, codec.site, texts[start : start + batch])
        codes = codec.encode(x[after_first_token(read)])
        where, values = codes.indices.flatten().to(fires.device), codes.values.flatten().double().to(fires.device)
        fires = fires.index_add(0, where, (values > 0).double())
        total = total.index_add(0, where, values)
        count += len(codes.values)
    return FiringSums(fires, total, count)
