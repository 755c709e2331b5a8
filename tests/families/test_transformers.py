"""Every class of pipeline with a diffusion transformer: its pictures, its sites, and the rows at them."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from concept_probe.activations import tap
from concept_probe.erasers import Edit, Shift
from concept_probe.families import load
from concept_probe.families.diffusion.dit.joint import JointSequence, Stream
from concept_probe.families.segments import Rows
from concept_probe.families.text.conditioning import Conditioning
from concept_probe.testing.models import save_model
from concept_probe.testing.models.by_itself import drawn_by_itself
from concept_probe.testing.models.read_by_lm import READ_BY_LM
from concept_probe.testing.models.transformers import TRANSFORMERS
from concept_probe.types import Prompt, Query, Sampling

KINDS = {**TRANSFORMERS, **READ_BY_LM}
QUERIES = [Query(Prompt("a cat", "cat"), 1), Query(Prompt("the red dog in the sun"), 2)]
GUIDED = Sampling(steps=2, guidance=3.0)


@cache
def subject_of(name: str) -> Any:
    return KINDS[name]()


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_latents_and_pictures_are_the_pipelines_own(name):
    subject = subject_of(name)
    for guidance in (GUIDED.guidance, 0.0):
        sampling = Sampling(steps=2, guidance=guidance)
        latents, pictures = drawn_by_itself(subject.pipeline, QUERIES, subject.latent_shape, sampling)
        ours = subject.sample(QUERIES, sampling)
        torch.testing.assert_close(ours, latents, atol=5e-6 * float(latents.abs().max()), rtol=0)
        torch.testing.assert_close(subject.decode(ours), pictures, atol=5e-6, rtol=0)
    alone = torch.cat([subject.sample([query], sampling) for query in QUERIES])
    torch.testing.assert_close(alone, ours, atol=5e-6 * float(latents.abs().max()), rtol=0)
    other = subject.sample([Query(Prompt("red"), 1)], sampling)
    assert float((other - ours[:1]).abs().max()) > 2e-5  # and the prompt matters to it


def assert_text_behind_the_last_block_goes_nowhere(subject, before):
    """Where a last block gives text at all: rows that were taken for text and are the image's would be seen."""
    image, text = ([*_sites(subject, role)][-1:] for role in ("block_out", "block_text_out"))
    if not text or text[0].path != image[0].path:
        return
    with tap(subject, {text[0]: lambda x, moment: torch.zeros_like(x)}):
        torch.testing.assert_close(subject.sample(QUERIES, GUIDED), before, atol=1e-6, rtol=0)
    with tap(subject, {image[0]: lambda x, moment: torch.zeros_like(x)}):
        assert float((subject.sample(QUERIES, GUIDED) - before).abs().max()) > 1e-3


def _sites(subject, role):
    return subject.sites(role) if role in subject.roles() else ()


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_sites_have_the_rows_of_their_axis_and_looking_changes_no_bit(name, tmp_path):
    subject = subject_of(name)
    before, seen = subject.sample(QUERIES, GUIDED), {}
    sites = [site for role in subject.roles() for site in subject.sites(role) if site.side != "weight"]

    def look(site):
        return lambda x, moment: seen.setdefault(site, (x, moment.token_kinds)) and None

    with tap(subject, {site: look(site) for site in sites}):
        assert torch.equal(subject.sample(QUERIES, GUIDED), before)
    for site in sites:
        x, kinds = seen[site]
        if x.ndim == 3 and not subject.is_text(site):
            assert x.shape[:2] == (kinds.shape if subject.axis(site) == "token" else (len(x), subject.patches)), site
    with tap(subject, {site: lambda x, moment: x.clone() for site in sites}):
        assert torch.equal(subject.sample(QUERIES, GUIDED), before)
    assert_text_behind_the_last_block_goes_nowhere(subject, before)
    weight = next(site for role in subject.roles() for site in subject.sites(role) if role == "mlp_value")
    change = torch.ones_like(subject.parameter(weight))
    with Edit("shift", "cat", {str(weight): Shift(change)}, subject.weight_hash()).on(subject):
        assert not torch.equal(subject.sample(QUERIES, GUIDED), before)
    assert torch.equal(subject.sample(QUERIES, GUIDED), before)
    again: Any = load(save_model(subject, tmp_path))
    again.picture_size = subject.picture_size
    assert again.weight_hash(whole=True) == subject.weight_hash(whole=True)
    assert torch.equal(again.sample(QUERIES, GUIDED), before)


LAYOUTS = {
    "text, then image": (JointSequence(), "ttt?iiii"),
    "registers first": (JointSequence(registers=2), "##ttt?iiii"),
    "image where the text ends": (JointSequence(close=True), "tttiiii"),
    "image first, both filled up": (JointSequence(image_first=True, multiple=3), "iiii##ttt###"),
}
"""Layouts of 3 tokens of 4, the last of which fills up, and 4 patches."""


@pytest.mark.parametrize("name", LAYOUTS)
def test_rows_of_a_stream_are_read_and_written_where_they_stand(name):
    layout, letters = LAYOUTS[name]
    x = torch.arange(1.0, len(letters) + 1)[None, :, None]
    mask = torch.tensor([[True, True, True, False]])
    text = Conditioning(torch.zeros(1, 4, 1), None, torch.zeros(1, 4, dtype=torch.long), mask=mask)
    streams: dict[Stream, str] = {"text": "t", "image": "i"}
    for stream, letter in streams.items():
        rows = layout.rows("both", stream, text, 4)
        own = [i + 1.0 for i, one in enumerate(letters) if one == letter]
        read = rows.read(x).flatten().tolist()
        assert read[: len(own)] == own and len(read) == 4
        if rows.there is not None:
            assert read[3] == 0
        written = rows.write(x, rows.read(x) + 100).flatten()
        for i, one in enumerate(letters):
            expected = i + 101 if one in (letter, "?" if stream == "text" else letter) else i + 1
            assert float(written[i]) == expected


def test_gradients_pass_the_rows_both_ways():
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    new = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)
    rows = Rows(torch.tensor([[0, 3], [1, 4]]), torch.tensor([[True, True], [True, False]]))
    assert torch.autograd.gradcheck(rows.read, (x,)) and torch.autograd.gradcheck(rows.write, (x, new))
