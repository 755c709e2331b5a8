"""What a block adds to its input is a site of its own, which published autoencoders of text-to-image blocks read."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from concept_probe.activations import read_rows, tap
from concept_probe.erasers import AblateFeatures
from concept_probe.find import RowQuery, find_features
from concept_probe.learn import load_sae
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models import TINY_MODELS
from concept_probe.types import Prompt, Query, Sampling, Site
from tests.learn.checkpoints import write_json

SHORT = Sampling(steps=2, guidance=1.0)
ASKED = [Query(Prompt("a cat", "cat"), 0)]


@pytest.fixture(scope="module")
def subject():
    return TINY_MODELS["sdxl"]()


@pytest.fixture(scope="module")
def block(subject):
    return subject.sites("block_out")[0]


def published(folder, d, **options):
    """As the autoencoders over blocks of SDXL Turbo are written."""
    f = 4 * d
    W = torch.randn(f, d, generator=torch.Generator().manual_seed(0))
    write_json(folder / "config.json", **{"d_model": d, "n_dirs": f, "k": 4, "auxk": 32, **options})
    tensors = {"encoder.weight": W, "latent_bias": torch.zeros(f), "pre_bias": torch.zeros(d)}
    save_file({**tensors, "decoder.weight": W.mT.contiguous()}, folder / "state_dict.safetensors")
    return folder


def test_the_change_is_output_minus_input(subject, block):
    parts = [Site(block.component, block.path, side) for side in ("in", "out", "change")]
    assert Site.parse(str(parts[2])) == parts[2]
    came, gave, change = (read_rows(subject, ASKED, sites=[s], sampling=SHORT)[s].x for s in parts)
    torch.testing.assert_close(change, gave - came)
    assert not torch.equal(change, gave)


def test_a_replaced_change_is_added_to_the_input(subject, block):
    site, seen = Site(block.component, block.path, "change"), []
    plain = subject.generate(ASKED, SHORT)
    with tap(subject, {site: lambda x, m: x}):
        assert torch.equal(subject.generate(ASKED, SHORT), plain)
    came = Site(block.component, block.path, "in")
    looks = {
        site: lambda x, m: torch.zeros_like(x),
        came: lambda x, m: seen.append(x),
        block: lambda x, m: seen.append(x),
    }
    with tap(subject, looks):
        subject.generate(ASKED, SHORT)
    torch.testing.assert_close(seen[0], seen[1])


def test_a_module_that_gives_another_shape_changes_nothing(subject):
    names = dict(subject.components["text_encoder"].named_modules())
    site = next(Site("text_encoder", n, "change") for n in names if n.endswith("fc1"))
    with (
        tap(subject, {site: lambda x, m: None}),
        pytest.raises(TypeError, match="so the module adds nothing to its input"),
    ):
        subject.encode([Prompt("a cat")])


@pytest.mark.slow
def test_published_autoencoders_of_changes_are_not_read_at_the_output(subject, block, tmp_path):
    d = read_rows(subject, ASKED, sites=[block], sampling=SHORT)[block].x.shape[1]
    folder = published(tmp_path, d)
    with pytest.raises(
        ValueError, match=r"reads what a block adds to its input.*pass site=Site\('unet', .*, 'change'\)"
    ):
        load_sae(folder, site=block)
    site = Site(block.component, block.path, "change")
    sae = load_sae(folder, site=site)
    found = find_features(
        sae, subject, tiny_concept(), count=2, which=RowQuery(limit=1, sampling=SHORT), formula="mean"
    )
    assert found[0].site == site
    plain = subject.generate(ASKED, SHORT)
    with AblateFeatures(strength=4.0)(subject, tiny_concept(), found).on(subject):
        assert not torch.equal(subject.generate(ASKED, SHORT), plain)
    assert load_sae(published(tmp_path, d, reads="out"), site=block).site == block
