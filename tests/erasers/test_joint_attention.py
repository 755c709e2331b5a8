"""Closed forms on diffusion transformers, whose blocks each read a text stream of their own."""

from __future__ import annotations

import itertools

import pytest
import torch

from concept_probe.activations import tap
from concept_probe.activations.attention import attention_to_text
from concept_probe.attacks.search.vocabulary import Vocabulary
from concept_probe.erasers import erase
from concept_probe.erasers.closed_form.alignment import align
from concept_probe.erasers.closed_form.states import gather, measured_over
from concept_probe.erasers.closed_form.uce import Uce
from concept_probe.families.identity import how_it_reads
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.transformers import TRANSFORMERS, tiny_flux, tiny_sd3
from concept_probe.types import BOS, CONTENT, EOS, PAD, SUBJECT, Prompt, Query, Sampling, Site

CONCEPT = tiny_concept()
FREE = {"lam": 1e-9, "preserve": (), "policy": "last_subject"}
"""Nothing but the concept's tokens counts, of which there are fewer than dimensions."""


@pytest.fixture(scope="module", params=[tiny_flux, tiny_sd3])
def subject(request):
    return request.param()


@pytest.mark.slow
def test_each_block_answers_its_own_stream_as_that_of_the_destination(subject):
    method = Uce(**FREE)
    groups = gather(subject, CONCEPT, method, "uce")
    edit = method(subject, CONCEPT)
    assert len(groups) == len(subject.sites("joint_text_key")) and len(edit.deltas) == 2 * len(groups)
    assert len({str(group.place) for group in groups}) == len(groups)
    before = {site: subject.matrix(site).detach().double() for group in groups for site in group.sites}
    with edit.on(subject):
        for group in groups:
            target, destination = group.states.target, group.states.destination
            for site in group.sites:
                now, was = subject.matrix(site).detach().double(), before[site]
                gap = torch.linalg.norm(target @ now.mT - destination @ was.mT)
                assert gap < 0.8 * torch.linalg.norm((target - destination) @ was.mT)
    streams = [group.states.target for group in groups]
    assert not any(torch.allclose(a, b) for a, b in itertools.pairwise(streams))


def test_the_context_embedder_is_edited_with_its_bias_counted_once():
    subject = tiny_flux()
    edit = erase(Uce(roles=("context_embedder_weight",), **FREE), subject, CONCEPT)
    assert list(edit.deltas) == ["transformer/context_embedder:weight"]
    site, prompts = subject.sites("context_embedder")[0], [Prompt("the cat", "cat"), Prompt("the thing", "thing")]

    def embedded() -> torch.Tensor:
        seen = []
        with tap(subject, {site: lambda x, moment: seen.append(x.clone())}):
            subject.run_to([site], [Query(p) for p in prompts])
        return seen[0][-2:]  # those of guidance come first

    before = embedded()
    with edit.on(subject):
        after = embedded()
    kinds = subject.tokenise(prompts).kinds
    places = [int((row == SUBJECT).nonzero().max()) for row in kinds]
    cat, thing = (before[i, place] for i, place in enumerate(places))
    assert torch.linalg.norm(after[0, places[0]] - thing) < 0.2 * torch.linalg.norm(cat - thing)


def test_without_a_beginning_token_the_first_word_counts():
    t5 = torch.tensor([CONTENT, SUBJECT, EOS, PAD])
    assert align(t5, t5, "all") == [(0, 0), (1, 1), (2, 2), (3, 3)]
    clip = torch.tensor([BOS, CONTENT, SUBJECT, EOS])
    assert align(clip, clip, "all") == [(1, 1), (2, 2), (3, 3)]
    endless = torch.tensor([BOS, CONTENT, SUBJECT, PAD, PAD])  # encoders without an end token end with the last word
    assert align(endless, torch.tensor([BOS, SUBJECT, PAD, PAD, PAD]), "last_subject") == [(2, 1)]


def test_what_was_measured_of_several_blocks_is_the_worst_and_each(subject):
    groups = gather(subject, CONCEPT, Uce(**FREE), "uce")
    each = [{"gap_left": 0.1 * i} for i in range(len(groups))]
    told = measured_over(groups, each)
    assert told["gap_left"] == each[-1]["gap_left"] and list(told["by_place"]) == [str(g.place) for g in groups]


def test_what_needs_an_attention_to_a_text_that_stays_is_refused(subject):
    with pytest.raises(ValueError, match="text and image attend to each other; UCE, RECE and SPEED"):
        erase("mace", subject, CONCEPT)
    assert subject.counterpart("cross_key") == "joint_text_key" and subject.counterpart("mlp_value") == "mlp_value"


def test_rows_that_are_neither_tokens_nor_patches_are_not_labelled(subject):
    with pytest.raises(ValueError, match=r"whether the rows at site .* are tokens or patches is not declared"):
        subject.axis(Site("transformer", "transformer_blocks.0.norm1"))


def test_matrices_that_read_one_text_are_solved_as_one_and_those_that_read_the_image_are_refused():
    crossing = TRANSFORMERS["pixart-alpha"]()
    (group,) = gather(crossing, CONCEPT, Uce(**FREE), "uce")
    keys, values = crossing.sites("cross_key_weight"), crossing.sites("cross_value_weight")
    assert set(group.sites) == {*keys, *values} and len(keys) > 1
    with pytest.raises(ValueError, match="reads the image, not the text"):
        Uce(roles=("joint_image_key_weight",), **FREE)(tiny_flux(), CONCEPT)


def test_attention_leaves_out_what_the_denoiser_does_not_look_at():
    subject = TRANSFORMERS["pixart-alpha"]()
    read = subject.encode([Prompt("the cat", "cat")])
    assert read.mask is not None and not bool(read.mask.all())
    with attention_to_text(subject) as maps:
        subject.predict(torch.randn(1, *subject.latent_shape), torch.tensor([500.0]), read)
    hidden = ~read.mask[0]
    for one in maps:
        assert float(one[..., hidden].abs().max()) == 0
        torch.testing.assert_close(one.sum(-1), torch.ones(one.shape[:-1]))


def test_words_are_the_tokens_that_each_encoder_spells_them_with():
    subject = tiny_flux()
    vocabulary = Vocabulary.of(subject)
    for site, ids in vocabulary.ids.items():
        tokenizer = subject.text.tokenizers[site.component]
        assert [tokenizer.decode([i]).strip() for i in ids.tolist()] == list(vocabulary.words)


def test_pictures_of_another_size_are_of_another_subject():
    subject = tiny_flux()
    stamp, reads = subject.stamp(), how_it_reads(subject)
    subject.picture_size = (24, 16)
    assert subject.generate([Query(Prompt("the cat"))], Sampling(steps=1, guidance=1.0)).shape == (1, 3, 24, 16)
    assert subject.stamp() != stamp and how_it_reads(subject) != reads
    with pytest.raises(ValueError, match="both sides are multiples of 4"):
        subject.picture_size = (18, 16)
