"""What erasers work on, made for tiny subjects: aimed at a concept, drawn at random, or empty."""

from __future__ import annotations

import functools
from dataclasses import replace

import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.erasers import Needs
from concept_probe.families import Subject
from concept_probe.find import RankedColumns, concept_rows, difference_of_means, find_features, leace, rank_columns
from concept_probe.find.directions.projection import orthonormal
from concept_probe.find.vectors.columns import matrix_site
from concept_probe.learn.sae import Sae, TopK
from concept_probe.types import Concept, Prompt, Query, Sampling, Score, Site, Subspace

CERTAIN = Score("made by a test", 1.0, 1.0, 1.0, 1)
FEATURES, COLUMNS, PER_LAYER = 6, 8, 4
"""How many features there are, columns of a text encoder, and columns of each layer of a language model."""


def aimed(needs: Needs, subject: Subject, concept: Concept) -> tuple[Subspace, ...]:
    """What of the kind that is needed is the concept's; nothing where the method can find it by itself.

    Of methods that choose among features themselves, at one site, no more is asked than an autoencoder there.
    """
    if needs.found == "nothing" or needs.optional:
        return ()
    if needs.found == "features":
        return aimed_features(subject, concept)
    if needs.found in ("text_features", "patch_features"):
        return some_feature(
            subject, "text_stream" if needs.found == "text_features" else subject.counterpart("cross_out")
        )
    return aimed_columns(subject, concept)


def drawn(needs: Needs, subject: Subject, concept: Concept, seed: int) -> tuple[Subspace, ...] | None:
    """As much of the same kind at random; None where a method goes by the concept's prompts, whatever is found."""
    if needs.found == "features":
        return drawn_features(subject, seed)
    if needs.found in ("vectors", "columns"):
        return drawn_columns(subject, concept, seed)
    if needs.found == "directions":
        return tuple(turned(space, seed) for space in directions(subject, concept))
    return None


def empty(needs: Needs, subject: Subject) -> tuple[Subspace, ...] | None:
    """Subspaces of rank 0; None where a method takes no more of what is found than its autoencoder."""
    if needs.found == "features":
        sae = random_sae(subject, stream(subject))
        return (Subspace(sae.site, torch.zeros(sae.d, 0), "activation", CERTAIN, codec=sae),)
    if needs.found == "vectors":
        site = subject.sites(
            subject.counterpart("cross_value_weight") if subject.answers == "pictures" else "mlp_value"
        )[0]
        return (Subspace(site, torch.zeros(subject.matrix(site).shape[0], 0), "parameter", CERTAIN),)
    if needs.found == "directions":
        site = subject.sites("text_out")[0]
        none = torch.zeros(width(subject, site), 0)
        return tuple(Subspace(site, none, "activation", CERTAIN, dual=dual) for dual in (None, none))
    return None


def stream(subject: Subject) -> str:
    """The role of what a subject's blocks hand on while they read."""
    return "text_stream" if subject.answers == "pictures" else "resid"


def random_sae(subject: Subject, role: str, block: int = 0) -> Sae:
    """TopK autoencoder with random unit directions, four per dimension, over one site of a role."""
    site = subject.sites(role)[block]
    d, active = width(subject, site), 4 if subject.answers == "pictures" else 6
    rows = torch.randn(4 * d, d, generator=torch.Generator().manual_seed(block))
    rows, zero = torch.nn.functional.normalize(rows, dim=1), torch.zeros(d)
    return Sae(site, TopK(active), W_enc=rows.mT.contiguous(), b_enc=torch.zeros(4 * d), W_dec=rows, b_dec=zero)


def width(subject: Subject, site: Site) -> int:
    """Of what a site gives."""
    seen: list[Tensor] = []
    with tap(subject, {site: lambda x, moment: seen.append(x)}):
        subject.run_to([site], [Query(Prompt("a cat"))], Sampling(steps=1), [0])
    return seen[0].shape[1 if seen[0].ndim == 4 else -1]


def features_of(sae: Sae, chosen: list[int]) -> Subspace:
    basis = sae.decoder[chosen].mT
    return Subspace(sae.site, basis, "activation", CERTAIN, features=tuple(chosen), codec=sae)


def some_feature(subject: Subject, role: str) -> tuple[Subspace, ...]:
    return (features_of(random_sae(subject, role), [0]),)


def aimed_features(subject: Subject, concept: Concept) -> tuple[Subspace, ...]:
    """Those of largest contrast; of texts by means over tokens."""
    formula = "mean" if subject.answers == "texts" else "share"
    return find_features(random_sae(subject, stream(subject)), subject, concept, count=FEATURES, formula=formula)


def drawn_features(subject: Subject, seed: int, role: str = "", count: int = FEATURES) -> tuple[Subspace, ...]:
    """At the first site of a role, by default that of `stream`."""
    sae = random_sae(subject, role or stream(subject))
    order = torch.randperm(sae.width, generator=torch.Generator().manual_seed(seed))
    return (features_of(sae, order[:count].tolist()),)


def column(subject: Subject, site: Site) -> Subspace:
    """Column `site.item` of a matrix that writes."""
    values = subject.matrix(matrix_site(site)).detach()[:, site.item, None].clone()
    return Subspace(site, values, "parameter", CERTAIN, "cat", "mlp_value")


@functools.cache
def ranking(subject: Subject, concept: Concept) -> RankedColumns:
    return rank_columns(subject, concept)


def aimed_columns(subject: Subject, concept: Concept) -> tuple[Subspace, ...]:
    """Of a text encoder, those that its readout needs most; of a language model, those of each layer that write more on
    the concept's prompts than on others."""
    if subject.answers == "pictures":
        return tuple(column(subject, site) for site in ranking(subject, concept).sites[:COLUMNS])
    out = []
    for value, hidden in zip(subject.sites("mlp_value"), subject.sites("mlp_hidden"), strict=True):
        rows = concept_rows(subject, concept, [hidden])[hidden]
        more = rows.x[rows.concept].abs().mean(0) - rows.x[~rows.concept].abs().mean(0)
        size = torch.linalg.vector_norm(subject.matrix(value).detach().float(), dim=0)
        chosen = (more * size).topk(PER_LAYER).indices.tolist()
        out += [column(subject, replace(value, item=j)) for j in chosen]
    return tuple(out)


def drawn_columns(subject: Subject, concept: Concept, seed: int) -> tuple[Subspace, ...]:
    """Of a text encoder, columns of about the same load as those that are aimed; of a language model, any."""
    generator = torch.Generator().manual_seed(seed)
    if subject.answers == "pictures":
        ranked = ranking(subject, concept)
        return tuple(column(subject, ranked.sites[i]) for i in ranked.matched(range(COLUMNS), generator, pool=16))
    out = []
    for value in subject.sites("mlp_value"):
        any_of = torch.randperm(subject.matrix(value).shape[1], generator=generator)[:PER_LAYER].tolist()
        out += [column(subject, replace(value, item=j)) for j in any_of]
    return tuple(out)


@functools.cache
def directions(subject: Subject, concept: Concept) -> tuple[Subspace, ...]:
    """Of every place where text is read: at right angles, and oblique."""
    sites = subject.sites("text_out")
    straight = [difference_of_means(subject, concept, site) for site in sites]
    return (*straight, *(leace(subject, concept, site, affine=False) for site in sites))


def turned(space: Subspace, seed: int) -> Subspace:
    """The subspace with its directions replaced by random ones; a projection of the same rank."""
    axes = orthonormal(torch.randn(space.basis.shape, generator=torch.Generator().manual_seed(seed)))
    return replace(space, basis=axes, dual=None if space.dual is None else axes)
