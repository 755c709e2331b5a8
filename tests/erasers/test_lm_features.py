"""Features of language models are ablated behind the first position, in prompts and in what is written."""

from __future__ import annotations

import pytest
import torch

from concept_probe.activations import tap
from concept_probe.erasers import AblateFeatures
from concept_probe.testing.concepts import tiny_facts
from concept_probe.testing.found import drawn_features
from concept_probe.testing.models.language import LANGUAGE, tiny_gpt2
from concept_probe.types import Query, Sampling

CONCEPT = tiny_facts()
PROMPTS = [*CONCEPT.target.fit, *CONCEPT.target.test]


@pytest.mark.parametrize("role", ["resid", "mlp_out"])
@pytest.mark.parametrize("family", LANGUAGE)
def test_what_fires_behind_the_first_position_is_taken_out_and_nothing_else(family: str, role: str):
    subject = LANGUAGE[family]()
    (space,) = drawn_features(subject, seed=0, role=role, count=20)
    sae, seen = space.codec, []
    assert sae is not None
    with tap(subject, {space.site: lambda x, m: seen.append((x.clone(), m.places))}):
        subject.encode(PROMPTS)
    with (
        AblateFeatures()(subject, CONCEPT, [space]).on(subject),
        tap(subject, {space.site: lambda x, m: seen.append((x.clone(), m.places))}),
    ):
        subject.encode(PROMPTS)
    (x, places), (edited, _) = seen
    chosen = list(space.features)
    taken = sae.encode(x).dense(sae.width)[..., chosen] @ sae.decoder[chosen]
    later = (places > 0)[..., None]
    assert (places == -1).any() and (taken * later).abs().max() > 0.1
    torch.testing.assert_close(edited, x - taken * later, atol=1e-5, rtol=1e-4)
    assert torch.equal(edited[places < 1], x[places < 1])


def test_it_acts_on_what_is_written_too():
    subject = tiny_gpt2()
    guard = AblateFeatures()(subject, CONCEPT, drawn_features(subject, seed=0, count=40))
    site = subject.sites("resid")[0]
    taken: dict[int | None, float] = {}

    def look(x, moment):
        change = guard.actions[site](x, moment)
        taken[moment.step] = 0.0 if change is None else float(change.abs().max())

    with tap(subject, {site: look}):
        subject.generate([Query(PROMPTS[0])], Sampling(tokens=3))
    assert list(taken) == [None, 1, 2] and min(taken.values()) > 0
