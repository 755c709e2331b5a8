"""Guards that choose among an autoencoder's features, or read a span, by themselves: the same ones with a random choice."""

from __future__ import annotations

from collections.abc import Callable

import torch

from concept_probe.erasers import Intervention, Itd, Saeuron, Safree
from concept_probe.erasers.eraser import TINY_SAMPLING
from concept_probe.erasers.guards.patch_replacement import PatchDetector, Replacer
from concept_probe.erasers.guards.requery import Requery
from concept_probe.erasers.guards.saeuron import timetable
from concept_probe.erasers.guards.safree import EncoderReader
from concept_probe.families import UNetSubject
from concept_probe.find import concept_rows
from concept_probe.find.directions.projection import orthonormal
from concept_probe.find.rows import RowQuery
from concept_probe.testing.checks import PictureErasers
from concept_probe.testing.found import random_sae, some_feature

CONCEPT = PictureErasers.concept


def random_itd(subject: UNetSubject, seed: int) -> Intervention:
    """As many features as are chosen, drawn at random."""
    sae = random_sae(subject, "text_stream")
    own = Itd.tiny()(subject, CONCEPT, some_feature(subject, "text_stream"))
    drawn = torch.randperm(sae.width, generator=torch.Generator().manual_seed(seed))
    chosen = drawn[: len(own.made_by["features"][str(sae.site)])].tolist()
    return Intervention("itd", CONCEPT.name, {sae.site: Itd()._action(sae, chosen, 0.0)})


def random_saeuron(subject: UNetSubject, seed: int) -> Intervention:
    """Features drawn at random, where the aimed one chooses by contrast."""
    sae = random_sae(subject, subject.counterpart("cross_out"))
    rows = concept_rows(subject, CONCEPT, [sae.site], "fit", which=RowQuery(limit=2, sampling=TINY_SAMPLING))[sae.site]
    drawn = torch.randint(sae.width, (TINY_SAMPLING.steps, 2), generator=torch.Generator().manual_seed(seed))
    action = Saeuron()._action(sae, timetable(sae, rows, {0: 999, 1: 499}, drawn))
    return Intervention("saeuron", CONCEPT.name, {sae.site: action})


def random_patch_replacement(subject: UNetSubject, seed: int) -> Intervention:
    """Features drawn at random, and a floor that about as many patches exceed."""
    sae = random_sae(subject, subject.counterpart("cross_out"))
    drawn = torch.randint(sae.width, (TINY_SAMPLING.steps, 16), generator=torch.Generator().manual_seed(seed))
    detector = PatchDetector(sae, torch.tensor([999, 499]), drawn, torch.zeros(TINY_SAMPLING.steps))
    replacer = Replacer(Requery(subject, ""))
    return Intervention("patch_replacement", CONCEPT.name, {sae.site: replacer.where(sae.site, detector)})


def random_safree(subject: UNetSubject, seed: int) -> Intervention:
    """Random directions for the span of the concept."""
    eraser, actions = Safree.tiny(), {}
    for embedding, out in zip(subject.sites("token_embedding"), subject.sites("text_out"), strict=True):
        reader = EncoderReader(subject, embedding, out)
        d = reader.summaries(CONCEPT.target.fit[:1]).shape[1]
        drawn = torch.randn(d, 2, generator=torch.Generator().manual_seed(seed))
        actions |= {embedding: reader.remember, out: eraser._action(reader, orthonormal(drawn))}
    return Intervention("safree", CONCEPT.name, actions)


RANDOM_AIMS: dict[str, Callable[[UNetSubject, int], Intervention]] = {
    "itd": random_itd,
    "saeuron": random_saeuron,
    "patch_replacement": random_patch_replacement,
    "safree": random_safree,
}
