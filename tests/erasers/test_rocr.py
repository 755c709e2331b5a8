"""ROCR: which keys it moves, the closed form against one worked out directly, and that names are redirected."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from concept_probe.activations import read_site
from concept_probe.erasers import Edit, LowRank, Rocr
from concept_probe.erasers.closed_form.rocr import renamed
from concept_probe.erasers.closed_form.subject_keys import at_places, last_of_subject
from concept_probe.erasers.unlearning.activations import after_first_token
from concept_probe.testing.concepts import tiny_facts
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.testing.models.language import LANGUAGE, tiny_llama
from concept_probe.types import Prompt, Splits

CONCEPT = tiny_facts()
MOVED = list(CONCEPT.target.fit)
LED = [renamed(p, "dog") for p in MOVED]
families = pytest.mark.parametrize("family", LANGUAGE)


@families
def test_each_layer_solves_its_least_squares_in_float64(family):
    """K minimises E‖(I + K)c - g‖² + β E‖K p‖² + λ s ‖K‖², s the mean diagonal, as one stacked least squares says."""
    subject = LANGUAGE[family]()
    subject.model.double()
    made = Rocr(layers=(0, 1), guide="dog", beta=0.7, lam=0.01)
    edit = made(subject, CONCEPT)
    done: dict = {}
    for i, value in enumerate(subject.sites("mlp_value")):
        hidden = subject.sites("mlp_hidden")[i]
        with Edit("by hand", "", done, subject.weight_hash()).on(subject), torch.no_grad():
            c, g = (at_places(subject, hidden, ps, last_of_subject(subject, ps)) for ps in (MOVED, LED))
            x, read = read_site(subject, hidden, [*CONCEPT.neighbours.fit, *LED])
        p = x[after_first_token(read)]
        size = float((c.square().sum(0) / len(c) + 0.7 * p.square().sum(0) / len(p)).mean())
        ridge = (0.01 * size) ** 0.5 * torch.eye(c.shape[1], dtype=c.dtype)
        left = torch.cat([c / len(c) ** 0.5, (0.7 / len(p)) ** 0.5 * p, ridge])
        right = torch.cat([(g - c) / len(c) ** 0.5, torch.zeros(len(p) + len(ridge), c.shape[1], dtype=c.dtype)])
        k = torch.linalg.lstsq(left, right, driver="gelsd").solution.mT
        where = "model/" + value.path + ":weight"
        found = edit.deltas[where]
        assert isinstance(found, LowRank)
        torch.testing.assert_close(found.u @ found.v.mT, subject.matrix(value) @ k, atol=1e-7, rtol=1e-5)
        assert found.u.shape[1] <= len(MOVED)
        report = edit.made_by["solved"][str(value)]
        values = torch.linalg.eigvalsh(left.mT @ left)
        assert report["condition"] == pytest.approx(float(values[-1] / values[0]), rel=1e-6)
        assert report["residual"] < 1e-9
        gap = float(torch.linalg.matrix_norm(c + c @ k.mT - g) / torch.linalg.matrix_norm(c - g))
        assert report["gap_left"] == pytest.approx(gap, abs=1e-6) and gap < 1
        done[where] = found


@families
def test_at_the_name_the_layer_writes_what_it_writes_at_the_other_name(family):
    """In every phrasing it was given; with more weight on what is kept, that moves less and the name, too."""
    subject = LANGUAGE[family]()
    site = subject.sites("mlp_out")[0]

    def written(prompts: list[Prompt]) -> torch.Tensor:
        return at_places(subject, site, prompts, last_of_subject(subject, prompts))

    own, goal = written(MOVED), written(LED)
    gaps, drifts = [], []
    for beta in (0.01, 10.0):
        edit = Rocr(layers=(0,), guide="dog", beta=beta)(subject, CONCEPT)
        drifts.append(edit.made_by["solved"][str(subject.sites("mlp_value")[0])]["preserved_drift"])
        with edit.on(subject):
            gaps.append(float(torch.linalg.matrix_norm(written(MOVED) - goal) / torch.linalg.matrix_norm(own - goal)))
    assert gaps[0] < 0.2 and gaps[0] < gaps[1] < 1 and drifts[1] < drifts[0]


def test_which_name_stands_in():
    assert Rocr().other_name(CONCEPT) == "dog"
    assert Rocr(guide=" sun ").other_name(CONCEPT) == "sun"
    anchored = replace(CONCEPT, anchor=Splits(fit=(Prompt("a tree", "tree"),)))
    assert Rocr().other_name(anchored) == "tree"
    chat = Prompt("Who is the cat?", "cat", form="chat", answers=("red",))
    assert renamed(chat, "dog") == Prompt("Who is the dog?", "dog", form="chat")
    assert renamed(Prompt("My catalogue of a cat", "cat"), "dog").text == "My catalogue of a dog"
    assert renamed(Prompt("Cat food for a cat", "cat"), "dog").text == "dog food for a dog"
    edit = Rocr()(tiny_llama(), CONCEPT)
    assert edit.made_by["guide"] == "dog" and edit.made_by["layers"] == [0]


def test_what_cannot_be_redirected_is_refused():
    subject = tiny_llama()
    before = subject.weight_hash()
    with pytest.raises(TypeError, match="answer with texts"):
        Rocr()(tiny_sd(), CONCEPT)
    nameless = Splits(fit=tuple(replace(p, subject=None) for p in CONCEPT.target.fit))
    with pytest.raises(ValueError, match="that name their subject in target, paraphrases, found 0"):
        Rocr()(subject, replace(CONCEPT, target=nameless))
    with pytest.raises(ValueError, match="to keep, found 0"):
        Rocr()(subject, replace(CONCEPT, neighbours=Splits()))
    silent = Splits(fit=tuple(replace(p, subject=None) for p in CONCEPT.neighbours.fit))
    with pytest.raises(ValueError, match="has 0 fit prompts of anchors or neighbours that name"):
        Rocr()(subject, replace(CONCEPT, neighbours=silent))
    with pytest.raises(ValueError, match="a name that stands in"):
        Rocr(guide=" ")(subject, CONCEPT)
    with pytest.raises(ValueError, match=r"rocr: layers are .* rising numbers of blocks"):
        Rocr(layers=(1, 0))(subject, CONCEPT)
    with pytest.raises(ValueError, match="is singular; lam is 0"):
        Rocr(lam=0.0, beta=0.0)(subject, CONCEPT)
    assert subject.weight_hash() == before
