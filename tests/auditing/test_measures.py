"""Probes, patches, concept vectors and features, one by one, where the answer is known."""

from __future__ import annotations

import pytest
import torch

from concept_probe.activations import read_texts, tap
from concept_probe.auditing import AuditPlan
from concept_probe.auditing.evidence.cut import cut
from concept_probe.auditing.evidence.patching import levels
from concept_probe.auditing.evidence.probing import garbled
from concept_probe.auditing.evidence.ridge_probe import fit_ridge_probe
from concept_probe.auditing.evidence.vectors_put_back import put_back
from concept_probe.auditing.places import places_in
from concept_probe.auditing.questions import Questions, thinned
from concept_probe.auditing.states import putting
from concept_probe.evaluation.thinning import most_varied
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd, tiny_sdxl
from concept_probe.types import Prompt, Query, Sampling, Score, Site, Subspace, evenly_with_ends
from tests.auditing.known import Reader

ONE = Score("made by the test", 1, 1, 1, 1)


def test_a_ridge_probe_solves_its_equation_and_separates():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 6, generator=generator)
    labels = torch.arange(40) < 20
    x[labels] += torch.tensor([2.0, 0, 0, 0, 0, 0])
    probe = fit_ridge_probe(x, labels.unsqueeze(1), penalty=0.1)
    z = (x.double() - probe.mean) / probe.scale
    y = torch.where(labels, 2.0, -2.0).double()
    amount = 0.1 * float((z @ z.mT).diagonal().mean())
    primal = torch.linalg.solve(z.mT @ z + amount * torch.eye(6, dtype=torch.float64), z.mT @ y)
    torch.testing.assert_close(probe.weight[:, 0], primal)
    readings = probe(x)[:, 0]
    assert readings[labels].mean() > readings[~labels].mean() + 1
    with pytest.raises(ValueError, match="rows of others"):
        fit_ridge_probe(x, torch.ones(40, 1, dtype=torch.bool))


def test_garbled_prompts_keep_the_letters_and_lose_the_word():
    prompt = Prompt("a picture of animal with humps in noto style", "animal with humps", "camel")
    fit, test = garbled(prompt, "fit"), garbled(prompt, "test")
    assert fit.subject is not None and fit.subject in fit.text and fit.text.startswith("a picture of ")
    assert sorted(fit.text) == sorted(prompt.text) and fit.subject != prompt.subject and fit.text != test.text
    assert garbled(prompt, "fit") == fit


def test_prompts_are_thinned_evenly():
    # Styles go round, so every other prompt would be of two styles, every fourth of one.
    styles, shapes = (
        ("noto", "twemoji", "fluent", "contrast"),
        ("a {} cat", "cat as {} picture", "the {} cat", "my {} cat"),
    )
    prompts = [Prompt(shape.format(style)) for shape in shapes for style in styles]
    for most in (4, 8, 12):
        some = most_varied(prompts, most)
        assert len(some) == most and [p for p in prompts if p in some] == list(some)
        assert {sum(style in p.text for p in some) for style in styles} == {most // 4}
        assert all(any(p.text == shape.format(s) for p in some for s in styles) for shape in shapes)
    assert most_varied(prompts, 20) == tuple(prompts)
    assert evenly_with_ends([1, 2, 3, 4, 5], 3) == [1, 3, 5] and evenly_with_ends([1], 3) == [1]
    small = thinned(tiny_concept(), 2)
    assert (
        len(small.target.test) == 2
        and len(small.paraphrases.test) == 2
        and small.target.fit == tiny_concept().target.fit
    )


def test_questions_share_the_fit_prompts_between_kinds():
    questions = Questions.of(AuditPlan(fit_images=5), tiny_concept(), "cat", Reader(), "pictures")
    mine, others = questions.fits()
    assert len(mine) == 5 and {p.label for p in mine} == {"cat"}
    assert len(others) == 5 and {p.label for p in others} == {"dog", "sun"}
    assert len(questions.tests()) == 5 * 3 * 2


@pytest.mark.parametrize("make", [tiny_sd, tiny_sdxl])
def test_levels_pair_the_encoders_by_depth(make):
    subject = make()
    depths = levels(places_in(subject, 4), subject)
    assert len(depths) == 2
    assert all({s.component for s in of} == {c for c in subject.components if "text" in c} for of in depths)
    assert all(s.path.endswith(f"layers.{i}") for i, of in enumerate(depths) for s in of)


@pytest.mark.slow
def test_states_of_a_subject_put_into_itself_change_no_picture_and_those_of_another_prompt_give_its_picture():
    subject = tiny_sd()
    site = subject.sites("text_stream")[-1]
    sampling = Sampling(steps=2, guidance=2.0, batch=4)
    cat, dog = Query(Prompt("a cat", "cat", "cat"), 3), Query(Prompt("the dog", "dog", "dog"), 3)
    own = read_texts(subject, [cat.prompt, dog.prompt], [site])
    plain = subject.generate([cat, dog], sampling)
    with tap(subject, putting(own, (cat, dog))):
        assert torch.equal(subject.generate([cat, dog], sampling), plain)
    swapped = {site: own[site][::-1]}
    with tap(subject, putting(swapped, (cat, dog))):
        torch.testing.assert_close(subject.generate([cat, dog], sampling), plain.flip(0))


def test_a_cut_of_columns_of_inputs_and_of_outputs():
    weight = torch.arange(12.0).reshape(3, 4)
    column = cut(weight, Subspace(Site("m", "w", "weight", 2), torch.zeros(3, 1), "parameter", ONE))
    assert column.inputs and torch.equal(column.vectors(weight), weight[:, 2:3])
    assert torch.equal(column.part(weight)[:, 2], weight[:, 2]) and column.part(weight)[:, [0, 1, 3]].abs().sum() == 0
    several = cut(weight, Subspace(Site("m", "w", "weight"), torch.zeros(3, 2), "parameter", ONE, features=(0, 3)))
    assert torch.equal(several.vectors(weight), weight[:, [0, 3]])
    inputs = cut(weight, Subspace(Site("m", "w", "weight"), torch.eye(4)[:, :1], "parameter", ONE))
    assert inputs.inputs and torch.allclose(inputs.part(weight)[:, 0], weight[:, 0])
    outputs = cut(weight, Subspace(Site("m", "w", "weight"), torch.eye(3)[:, :1], "parameter", ONE))
    assert not outputs.inputs and torch.allclose(outputs.part(weight)[0], weight[0])
    assert outputs.part(weight)[1:].abs().sum() == 0
    with pytest.raises(ValueError, match="column 9 of a weight of 4"):
        cut(weight, Subspace(Site("m", "w", "weight", 9), torch.zeros(3, 1), "parameter", ONE))
    with pytest.raises(ValueError, match="width 7 fits no side"):
        cut(weight, Subspace(Site("m", "w", "weight"), torch.zeros(7, 1), "parameter", ONE))


def test_an_oblique_removal_is_undone_by_putting_back():
    generator = torch.Generator().manual_seed(0)
    weight, d, e = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((3, 6), (6, 2), (6, 2)))
    e = e @ torch.linalg.inv(d.mT @ e)
    removed = weight - (weight @ d) @ e.mT
    how = cut(weight, Subspace(Site("m", "w", "weight"), d, "parameter", ONE, dual=e))
    torch.testing.assert_close(how.vectors(removed), torch.zeros(3, 2, dtype=torch.float64))
    torch.testing.assert_close(removed + how.part(weight - removed), weight)


def test_vectors_put_back_alone_are_as_before_and_leave_again():
    subject = tiny_sd()
    site = subject.sites("mlp_value")[0]
    parameter = subject.parameter(site)
    original, whole = parameter.detach().clone(), Site(site.component, site.path, "weight")
    erased = original.clone()
    erased[:, [1, 4]] = 0
    parameter.data = erased
    one = Subspace(Site(site.component, site.path, "weight", 4), original[:, 4:5], "parameter", ONE)
    with pytest.raises(RuntimeError, match="on purpose"), put_back(subject, {whole: original}, [one]):
        assert torch.equal(parameter[:, 4], original[:, 4]) and parameter[:, 1].abs().sum() == 0
        raise RuntimeError("on purpose")
    assert torch.equal(parameter, erased)
