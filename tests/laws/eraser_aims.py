"""Erasers aimed at the concept of a tiny subject, and the same ones aimed elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.erasers import (
    AblateFeatures,
    AblateVectors,
    Edit,
    Intervention,
    Itd,
    PatchReplacement,
    Saeuron,
    Safree,
    Steer,
    Training,
)
from concept_probe.erasers.guards.patch_replacement import PatchDetector, Replacer
from concept_probe.erasers.guards.requery import Requery
from concept_probe.erasers.guards.saeuron import timetable
from concept_probe.erasers.guards.safree import EncoderReader
from concept_probe.families import UNetSubject
from concept_probe.find import (
    Game,
    RankedColumns,
    concept_rows,
    difference_of_means,
    find_features,
    leace,
    rank_columns,
    repit,
    rlace,
)
from concept_probe.find.directions.projection import orthonormal
from concept_probe.find.rows import RowQuery
from concept_probe.learn.sae import Sae, TopK
from concept_probe.testing.concepts import tiny_concept
from concept_probe.types import Concept, Moment, Query, Sampling, Score, Site, Splits, Subspace

SAMPLING = Sampling(steps=2, guidance=2.0, batch=8)
SCHOOL = Training(steps=16, batch=8, pictures=8, sampling=SAMPLING, rate=0.02)
CONCEPT = tiny_concept()
Erasure = Intervention | Edit


@dataclass(frozen=True)
class Case:
    """How a method is made for the concept, and the same method aimed elsewhere (`seed` picks where)."""

    aimed: Callable[[UNetSubject], Erasure]
    random: Callable[[UNetSubject, int], Erasure]


def random_sae(subject: UNetSubject, seed: int = 0, role: str = "text_stream") -> Sae:
    """TopK autoencoder with random unit directions over the first text layer, or the first site of another role."""
    site = subject.sites(role)[0]
    d = 16 if role == "text_stream" else subject.module(site).to_out[0].out_features  # pyright: ignore
    generator = torch.Generator().manual_seed(seed)
    rows = torch.nn.functional.normalize(torch.randn(4 * d, d, generator=generator), dim=1)
    return Sae(site, TopK(4), W_enc=rows.mT.contiguous(), b_enc=torch.zeros(4 * d), W_dec=rows, b_dec=torch.zeros(d))


def score(value: float = 1.0) -> Score:
    return Score("made by the test", value, value, value, 1)


def column(subject: UNetSubject, site: Site) -> Subspace:
    values = subject.parameter(site).detach()[:, site.item, None]
    return Subspace(site, values.clone(), "parameter", score(), "cat", "mlp_value")


def aimed_features(subject: UNetSubject) -> Erasure:
    found = find_features(random_sae(subject), subject, CONCEPT, count=6)
    return AblateFeatures()(subject, CONCEPT, found)


def random_features(subject: UNetSubject, seed: int) -> Erasure:
    sae = random_sae(subject)
    chosen = torch.randperm(sae.width, generator=torch.Generator().manual_seed(seed))[:6]
    features = tuple(chosen.tolist())
    space = Subspace(sae.site, sae.decoder[chosen].mT, "activation", score(), features=features, codec=sae)
    return AblateFeatures()(subject, CONCEPT, (space,))


@functools.cache
def ranking(subject: UNetSubject) -> RankedColumns:
    return rank_columns(subject, CONCEPT)


def aimed_vectors(subject: UNetSubject) -> Erasure:
    return AblateVectors()(subject, CONCEPT, [column(subject, site) for site in ranking(subject).sites[:8]])


def random_vectors(subject: UNetSubject, seed: int) -> Erasure:
    ranked = ranking(subject)
    drawn = ranked.matched(range(8), torch.Generator().manual_seed(seed), pool=16)
    return AblateVectors()(subject, CONCEPT, [column(subject, ranked.sites[i]) for i in drawn])


def turned(space: Subspace, seed: int) -> Subspace:
    """The subspace with its directions replaced by random ones; a projection of the same rank."""
    drawn = torch.randn(space.basis.shape, generator=torch.Generator().manual_seed(seed))
    axes = orthonormal(drawn)
    return replace(space, basis=axes, dual=None if space.dual is None else axes)


@functools.cache
def projections(subject: UNetSubject, method: str) -> tuple[Subspace, ...]:
    sites = subject.sites("text_out")
    if method == "leace":
        return tuple(leace(subject, CONCEPT, site, affine=False) for site in sites)
    if method == "rlace":
        return tuple(rlace(subject, CONCEPT, site, game=Game(rounds=20)) for site in sites)
    fit = repit if method == "repit" else difference_of_means
    return tuple(fit(subject, CONCEPT, site) for site in sites)


def random_projection(eraser, subject: UNetSubject, seed: int) -> Erasure:
    return eraser(subject, CONCEPT, [turned(space, seed) for space in projections(subject, eraser.name)])


def other_concept(seed: int) -> Concept:
    """A concept of made-up words, with the same sentences and the same prompts to keep, which hold the real one."""
    letters = torch.randint(97, 123, (6,), generator=torch.Generator().manual_seed(seed)).tolist()
    word = "".join(map(chr, letters))

    def swapped(splits: Splits) -> Splits:
        return replace(
            splits,
            fit=tuple(replace(p, text=p.text.replace(p.subject or p.text, word), subject=word) for p in splits.fit),
        )

    kept = replace(CONCEPT.unrelated, fit=(*CONCEPT.unrelated.fit, *CONCEPT.target.fit))
    return replace(
        CONCEPT, name=word, target=swapped(CONCEPT.target), paraphrases=Splits(), implicit=Splits(), unrelated=kept
    )


def over(subject: UNetSubject, role: str = "text_stream") -> tuple[Subspace, ...]:
    """One feature of a random autoencoder: guards that choose features themselves need no more than the autoencoder."""
    sae = random_sae(subject, role=role)
    return (Subspace(sae.site, sae.decoder[:1].mT, "activation", score(), features=(0,), codec=sae),)


def random_patches(subject: UNetSubject, seed: int) -> Erasure:
    """SAeUron with features drawn at random, where the aimed one chooses by contrast."""
    sae = random_sae(subject, role="cross_out")
    rows = concept_rows(subject, CONCEPT, [sae.site], "fit", which=RowQuery(limit=2, sampling=SAMPLING))[sae.site]
    drawn = torch.randint(sae.width, (SAMPLING.steps, 2), generator=torch.Generator().manual_seed(seed))
    action = Saeuron()._action(sae, timetable(sae, rows, {0: 999, 1: 499}, drawn))
    return Intervention("saeuron", CONCEPT.name, {sae.site: action})


def patched() -> PatchReplacement:
    return PatchReplacement(at="site", count=16, quantile=0.2, sampling=SAMPLING, limit=2)


def random_detector(subject: UNetSubject, seed: int) -> Erasure:
    """Patch replacement with features drawn at random, and a floor that about as many patches exceed."""
    sae = random_sae(subject, role="cross_out")
    drawn = torch.randint(sae.width, (SAMPLING.steps, 16), generator=torch.Generator().manual_seed(seed))
    detector = PatchDetector(sae, torch.tensor([999, 499]), drawn, torch.zeros(SAMPLING.steps))
    replacer = Replacer(Requery(subject, ""))
    return Intervention("patch_replacement", CONCEPT.name, {sae.site: replacer.where(sae.site, detector)})


def spelled(subject: UNetSubject, seed: int) -> Erasure:
    return Steer(text=other_concept(seed).name)(subject, CONCEPT, over(subject))


def random_itd(subject: UNetSubject, seed: int) -> Erasure:
    sae = random_sae(subject)
    own = Itd(quantile=0.0, top=8)(subject, CONCEPT, over(subject))
    drawn = torch.randperm(sae.width, generator=torch.Generator().manual_seed(seed))
    chosen = drawn[: len(own.made_by["features"][str(sae.site)])].tolist()
    return Intervention("itd", CONCEPT.name, {sae.site: Itd()._action(sae, chosen, 0.0)})


def random_safree(subject: UNetSubject, seed: int) -> Erasure:
    """SAFREE with random directions for the span of the concept."""
    eraser, actions = Safree(alpha=0.0, tokens="suffix"), {}
    for embedding, out in zip(subject.sites("token_embedding"), subject.sites("text_out"), strict=True):
        reader = EncoderReader(subject, embedding, out)
        d = reader.summaries(CONCEPT.target.fit[:1]).shape[1]
        drawn = torch.randn(d, 2, generator=torch.Generator().manual_seed(seed))
        actions |= {embedding: reader.remember, out: eraser._action(reader, orthonormal(drawn))}
    return Intervention("safree", CONCEPT.name, actions)


def prompted(eraser) -> Case:
    """A method that goes by the concept's prompts alone, aimed at it and at made-up words."""
    return Case(lambda s: eraser(s, CONCEPT), lambda s, seed: eraser(s, other_concept(seed)))


def read_values(subject: UNetSubject, prompts, role: str = "cross_value") -> Tensor:
    """What the first site of a role (cross-attention's values) makes of the prompts, rows stacked (n, d).

    Passes that a guard asks for itself are left out. The empty prompt is read as guidance reads it.
    """
    seen = []
    branch, guidance = ("cond", 1.0) if any(p.text for p in prompts) else ("uncond", 2.0)
    sites = subject.sites(role)[:1]

    def look(x: Tensor, moment: Moment) -> None:
        if not moment.nested:  # a guard's own passes
            seen.append(x[[i for i, own in enumerate(moment.branches) if own == branch]])

    with tap(subject, dict.fromkeys(sites, look)):
        subject.run_to(sites, [Query(p) for p in prompts], Sampling(steps=1, guidance=guidance), [0])
    return torch.cat([x.flatten(0, 1) for x in seen])
