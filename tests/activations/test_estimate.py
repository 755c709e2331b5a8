"""What is said before a capture is what the capture then takes."""

from __future__ import annotations

import collections
import errno
import shutil

import pytest
import torch

from concept_probe.activations import CaptureOptions, capture, estimate_capture
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Query, Sampling
from tests.activations.test_live import UNEVEN
from tests.activations.test_store import PROMPTS

QUERIES = [Query(p, i) for i, p in enumerate(PROMPTS[:9])]


@pytest.fixture(scope="module")
def subject():
    return tiny_sd()


@pytest.mark.parametrize(
    "roles,options",
    [
        (["text_stream"], CaptureOptions()),
        (["cross_out"], CaptureOptions(steps=[1], dtype=torch.float16)),
        (["cross_key", "text_out"], CaptureOptions(branches=["cond", "uncond"])),
    ],
)
def test_rows_are_exact_and_bytes_are_those_on_disk(subject, tmp_path, roles, options):
    sampling = Sampling(steps=2, batch=4)
    said = estimate_capture(subject, QUERIES, roles=roles, sampling=sampling, options=options)
    acts = capture(subject, QUERIES, roles=roles, folder=tmp_path, sampling=sampling, options=options)
    empty = 20 if "uncond" in options.branches else 0  # the empty prompt's text row is kept once
    counted = {site: acts.rows(site) - (empty if subject.is_text(site) else 0) for site in acts.sites}
    assert dict(said.rows) == counted and said.prompts == 9 and said.seconds > 0
    written = sum(p.stat().st_size for p in tmp_path.glob("*.safetensors"))
    assert 0.8 < said.bytes / written < 1.02  # headers of files this small


def test_kinds_are_estimated_from_prompts_spread_over_all(subject):
    said = estimate_capture(subject, UNEVEN * 5, roles=["text_out"], kinds=["content"])
    acts = capture(subject, UNEVEN * 5, roles=["text_out"], kinds=["content"])
    assert 0.85 < said.rows[acts.sites[0]] / acts.rows(acts.sites[0]) < 1.15
    assert "200 prompts: about" in str(said) and "1 site(s)" in str(said)


def test_too_small_a_disk_is_refused_before_anything_is_made(subject, tmp_path, monkeypatch):
    said = estimate_capture(subject, PROMPTS, roles=["text_out"])
    said.check_room(tmp_path / "not" / "yet")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: collections.namedtuple("U", "total used free")(9, 8, 1))
    with pytest.raises(
        OSError, match=r"needs about 0.0 GB .* free; nothing was written; keep fewer .*--kind"
    ) as caught:
        said.check_room(tmp_path / "not" / "yet")
    assert caught.value.errno == errno.ENOSPC and not list(tmp_path.iterdir())
