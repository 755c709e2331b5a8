"""What is said of a feature, against autoencoders and rows of which it is known."""

from __future__ import annotations

import pytest
import torch

from concept_probe.activations import capture
from concept_probe.families.text.token_strings import END_MARK, PADS_MARK
from concept_probe.find import Examples, catalogue, evenly_by_label
from concept_probe.find.features import firing as firing_module
from concept_probe.find.features.firing import firing_per_prompt, values_at
from concept_probe.learn import Sae, TopK
from concept_probe.testing.models.diffusion import tiny_sd, tiny_sdxl
from concept_probe.types import Prompt, Query, Sampling, Site

FAST = Sampling(steps=2, guidance=2.0)
WORDS = ("cat", "dog", "sun")
PROMPTS = tuple(Prompt(f"{lead} {w}", w, w) for w in WORDS for lead in ("a", "the", "a red", "the red"))
KINDS = ("content", "subject", "eos", "pad")


@pytest.fixture(scope="module")
def subject():
    return tiny_sd()


def known(subject, site: Site) -> tuple[Sae, torch.Tensor]:
    """An autoencoder whose first three features write and read the mean directions of the three words."""
    text = subject.is_text(site)
    store = capture(subject, PROMPTS if text else [Query(p) for p in PROMPTS], sites=[site], kinds=KINDS, sampling=FAST)
    block = store.read(site)
    rows, about = block.x.double(), block.columns["prompt"] // 4
    if text:
        keep = block.columns["kind"] == 2
        rows, about = rows[keep], about[keep]
    means = torch.stack([rows[about == i].mean(0) for i in range(3)])
    directions = (means - means.mean(0)) / (means - means.mean(0)).norm(dim=1, keepdim=True)
    g = torch.Generator().manual_seed(0)
    W_dec = torch.cat([directions, torch.randn(5, rows.shape[1], generator=g, dtype=torch.float64)]).float()
    b_dec = means.mean(0).float()
    sae = Sae(site, TopK(3), W_enc=W_dec.mT.clone(), b_enc=torch.zeros(8), W_dec=W_dec, b_dec=b_dec)
    return sae, block.x


@pytest.mark.slow
@pytest.mark.parametrize("role", ["text_stream", "cross_out"])
def test_features_of_three_words_are_named_after_them(subject, role):
    sae, x = known(subject, subject.sites(role)[0])
    found = catalogue(sae, subject, PROMPTS, features=(0, 1, 2), sampling=FAST)
    assert [f.names[0][0] for f in found.features] == list(WORDS)
    for entry in found.features:
        assert entry.names[0][1] == pytest.approx(1, abs=1e-3)
        assert [v for _, v in entry.names] == sorted((v for _, v in entry.names), reverse=True)
    fires = sae.encode(x).dense(8) > 0
    assert found.rows == len(x) and found.prompts == len(PROMPTS)
    assert list(found.frequencies) == pytest.approx(fires.double().mean(0).tolist())
    assert found.names_control is not None and 0 < found.names_control < 1
    assert found.provenance["weights"] == subject.weight_hash()


def test_selectivity_is_judged_on_the_half_that_did_not_choose(subject):
    site = subject.sites("text_stream")[0]
    sae, _ = known(subject, site)
    prompts = PROMPTS[:8]
    found = catalogue(sae, subject, prompts, features=(0, 5))
    store = capture(subject, prompts, sites=[site], kinds=KINDS)
    block = store.read(site)
    for entry in found.features:
        values = sae.encode(block.x).dense(8)[:, entry.index]
        most = torch.zeros(8).scatter_reduce(0, block.columns["prompt"], values, "amax", include_self=False)
        chosen, rest = most[0::2], most[1::2]  # every other prompt of each word
        assert entry.prefers == ("cat" if chosen[:2].mean() > chosen[2:].mean() else "dog")
        mine, others = (rest[:2], rest[2:]) if entry.prefers == "cat" else (rest[2:], rest[:2])
        auroc = ((mine[:, None] > others).double() + 0.5 * (mine[:, None] == others).double()).mean()
        assert entry.selectivity is not None and entry.selectivity.control is not None
        assert entry.selectivity.value == pytest.approx(float(auroc), abs=1e-6) and entry.selectivity.n == 4


@pytest.mark.slow
def test_examples_are_the_strongest_prompts_with_the_values_of_their_tokens(subject):
    site = subject.sites("text_stream")[0]
    sae, _ = known(subject, site)
    entry = catalogue(sae, subject, PROMPTS, features=(1,), examples=Examples(4)).features[0]
    assert [e.firing for e in entry.examples] == sorted((e.firing for e in entry.examples), reverse=True)
    assert entry.examples[0].firing == entry.strongest
    for example in entry.examples:
        names, values = zip(*example.tokens, strict=True)
        spelled = "".join(names[:-2]).strip()
        assert spelled == example.prompt and names[-2:] == (END_MARK, PADS_MARK)
        assert max(values) == pytest.approx(example.firing, rel=2e-3)  # the table of prompts is in float16
        assert example.png is None and example.patches == ()
        block = capture(subject, [Prompt(example.prompt)], sites=[site], kinds=KINDS).read(site)
        theirs = sae.encode(block.x).dense(8)[:, 1]
        assert list(values[:-1]) == pytest.approx(theirs[: len(values) - 1].tolist(), abs=1e-4)


def test_at_a_site_of_pictures_the_mean_over_steps_is_laid_out_as_the_picture(subject):
    site = subject.sites("cross_out")[0]
    sae, _ = known(subject, site)
    found = catalogue(sae, subject, PROMPTS[:4], features=(0,), examples=Examples(2, 1), sampling=FAST)
    first, second = found.features[0].examples
    assert first.png is not None and first.png.startswith(b"\x89PNG") and second.png is None
    assert len(first.patches) == len(first.patches[0]) and first.tokens == ()
    block = capture(subject, [Query(Prompt(first.prompt, None, None))], sites=[site], sampling=FAST).read(site)
    codes = sae.encode(block.x).dense(8)[:, 0]
    mean = torch.stack([codes[block.columns["patch"] == i].mean() for i in range(len(first.patches) ** 2)])
    assert [v for row in first.patches for v in row] == pytest.approx(mean.tolist(), abs=1e-4)


def test_shards_and_small_chunks_change_nothing(subject, monkeypatch):
    site = subject.sites("text_stream")[0]
    sae, _ = known(subject, site)
    store = capture(subject, PROMPTS, sites=[site], kinds=KINDS)
    before, values = firing_per_prompt(sae, store, WORDS), values_at(sae, store, [3, 7], [0, 2])
    monkeypatch.setattr(firing_module, "VALUES", 8 * 13)
    after, again = firing_per_prompt(sae, store, WORDS), values_at(sae, store, [3, 7], [0, 2])
    assert torch.equal(before.strongest, after.strongest) and torch.equal(before.fired, after.fired)
    torch.testing.assert_close(before.means, after.means)
    assert set(values) == set(again) == {3, 7}
    for prompt in values:
        torch.testing.assert_close(values[prompt], again[prompt], equal_nan=True)
    monkeypatch.setattr(firing_module, "TABLE", 50)
    with pytest.raises(ValueError, match=r"12 prompts x 8 features don't fit in memory; give at most 6 prompts"):
        firing_per_prompt(sae, store, WORDS)


def test_without_labels_the_strongest_are_shown_and_nothing_is_claimed(subject):
    site = subject.sites("text_stream")[0]
    sae, _ = known(subject, site)
    found = catalogue(sae, subject, [Prompt(p.text) for p in PROMPTS], count=2)
    assert len(found.features) == 2 and "fire most strongly" in found.chosen_by and found.names_control is None
    assert all(f.selectivity is None and f.names == () and f.prefers == "" for f in found.features)


@pytest.mark.slow
def test_two_encoders_are_read_each_with_its_own_tokens():
    subject = tiny_sdxl()
    for component in ("text_encoder", "text_encoder_2"):
        site = next(s for s in subject.sites("text_stream") if s.component == component)
        d = capture(subject, PROMPTS[:1], sites=[site]).width(site)
        rows = torch.eye(d)
        sae = Sae(site, TopK(4), W_enc=rows.clone(), b_enc=torch.zeros(d), W_dec=rows, b_dec=torch.zeros(d))
        for entry in catalogue(sae, subject, PROMPTS, features=(0,)).features:
            assert "".join(n for n, _ in entry.examples[0].tokens).startswith(entry.examples[0].prompt)


def test_a_feature_that_is_not_there_is_refused(subject):
    sae, _ = known(subject, subject.sites("text_stream")[0])
    with pytest.raises(ValueError, match=r"feature 8 was asked for; the autoencoder over .* has 0 to 7"):
        catalogue(sae, subject, PROMPTS, features=(8,))


def test_spread_keeps_whole_labels():
    many = [Prompt(f"{w} {i}", None, w) for w in ("a", "b", "c", "d") for i in range(20)]
    some = evenly_by_label(many, 13)
    assert len(some) == 12 and {p.label for p in some} == {"a", "c"} and len(set(some)) == 12
    assert evenly_by_label(many, 500) == tuple(many)
    assert [p.label for p in evenly_by_label(many, 40)].count("b") == 10
    assert len(evenly_by_label([Prompt(str(i)) for i in range(50)], 7)) == 7
