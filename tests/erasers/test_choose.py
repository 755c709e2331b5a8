"""Choosing by measurement: the gentlest erasure that reaches the goal and keeps the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from concept_probe.erasers import AblateVectors, Edit, choose, choose_vectors
from concept_probe.erasers.select.choose import CHOICE, Tried, surest
from concept_probe.evaluation.panel import panel
from concept_probe.evaluation.selection import Selection
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Sampling, Score, Site, Subspace
from tests.find.test_vectors import PLANTED, SAMPLING, Remembers, planted

CONCEPT = tiny_concept()


@dataclass(frozen=True)
class Sums:
    """Sees `cat` in pictures that are among those it was shown, `dog` in all others."""

    known: Tensor
    name: str = "sums"
    version: str = "1"
    labels: tuple[str, ...] = ("cat", "dog", "sun", "none")

    def probabilities(self, images: Tensor) -> Tensor:
        same = (images.flatten(1)[:, None] - self.known.flatten(1)).abs().amax(-1).amin(1) < 1e-4
        return torch.nn.functional.one_hot(torch.where(same, 0, 1), 4).float()


@dataclass(frozen=True)
class Cats(Sums):
    """Sees `cat` in every picture, but in a batch of eight what stands at these places of its labels, by turns."""

    others: tuple[int, ...] = (1, 2)

    def probabilities(self, images: Tensor) -> Tensor:
        if len(images) == 8:
            return torch.eye(4)[torch.tensor(self.others)[torch.arange(8) % len(self.others)]]
        return torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(len(images), 1)


def score(value: float, control: float = 1.0) -> Score:
    return Score("x", value, value, value, 8, control=control)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"a": (0.5, 1.0), "b": (0.05, 0.95), "c": (0.0, 0.95)}, "b"),
        ({"a": (0.5, 1.0), "b": (0.3, 0.95), "c": (0.0, 0.5)}, "b"),
        ({"a": (0.0, 0.2), "b": (0.1, 0.4)}, None),
        ({"a": (0.1, 0.9), "b": (0.1, 0.93), "c": (0.0, 0.91), "d": (0.4, 1.0)}, "b"),
    ],
)
def test_the_rule(table: Mapping[str, tuple[float, float]], expected: str):
    tried = [Tried(name, score(gone), score(stay)) for name, (gone, stay) in table.items()]
    kept = Selection(goal=0.1, retain=0.95, floor=0.9).best(tried)
    assert (kept.name if kept else None) == expected


@pytest.mark.slow
def test_it_measures_each_erasure_on_the_same_pictures():
    subject = tiny_sd()
    sampling = Sampling(steps=2, guidance=2.0)
    tested = panel(CONCEPT, images=6)
    recogniser = Sums(subject.generate(tested.forget, sampling))
    site = subject.sites("mlp_value")[0]
    every = [
        Subspace(
            Site(site.component, site.path, "weight", j),
            subject.parameter(site)[:, j, None].clone(),
            "parameter",
            score(1),
        )
        for j in range(48)
    ]
    strong = AblateVectors()(subject, CONCEPT, every)
    choice = choose({"off": strong.scaled(0), "on": strong}, subject, CONCEPT, recogniser=recogniser, tested=tested,
                    selection=replace(CHOICE, sampling=sampling))  # fmt: skip
    assert [t.forget.value for t in choice.tried] == [1.0, 0.0]
    assert all(t.forget.control == 1.0 for t in choice.tried)
    assert choice.name == "on"
    assert isinstance(choice.erasure, Edit) and choice.erasure.deltas is strong.deltas and not choice.missed
    with pytest.raises(ValueError, match="no erasure"):
        choose({}, subject, CONCEPT, recogniser=recogniser)


def test_where_counts_agree_the_wider_margin_is_looked_at_first():
    tried = [
        Tried("narrow", score(0.0), score(1.0), doubt=0.3),
        Tried("wide", score(0.0), score(1.0), doubt=0.1),
        Tried("costly", score(0.0), score(0.5), doubt=0.0),
        Tried("weak", score(0.4), score(1.0), doubt=0.5),
    ]
    assert [t.name for t in surest(tried, CHOICE)] == ["wide", "narrow", "weak", "costly"]


@dataclass(frozen=True)
class Differs:
    """The more a picture differs from every one that it was shown, the less it is `cat`."""

    known: Tensor
    name: str = "differs"
    version: str = "1"
    labels: tuple[str, ...] = ("cat", "dog", "sun", "none")

    def probabilities(self, images: Tensor) -> Tensor:
        gap = (images.flatten(1)[:, None] - self.known.flatten(1)).abs().mean(-1).amin(1)
        cat = torch.exp(-200 * gap)
        return torch.stack([cat, 1 - cat, 0 * cat, 0 * cat], 1)


@pytest.mark.slow
def test_many_are_screened_and_the_surest_looked_at_with_care():
    subject = tiny_sd()
    sampling = Sampling(steps=3, guidance=2.0)
    few = panel(CONCEPT, images=24, others=32, seed=7000)
    careful = panel(CONCEPT, images=6)
    shown = [subject.generate(few.forget, Sampling(steps=1, guidance=2.0)), subject.generate(careful.forget, sampling)]
    site = subject.sites("mlp_value")[1]
    every = [
        Subspace(
            Site(site.component, site.path, "weight", j),
            subject.parameter(site)[:, j, None].clone(),
            "parameter",
            score(1),
        )
        for j in range(48)
    ]
    whole = AblateVectors()(subject, CONCEPT, every)
    made = {f"{factor}": whole.scaled(factor) for factor in (0.0, 0.5, 1.0, 2.0, 4.0)}
    choice = choose(made, subject, CONCEPT, recogniser=Differs(torch.cat(shown)), tested=careful,
                    selection=Selection(goal=-1.0, retain=0.0, floor=0.0, sampling=sampling))  # fmt: skip
    assert [t.name for t in choice.screened] == list(made)
    doubts = [t.doubt for t in choice.screened]
    assert doubts == sorted(doubts, reverse=True)
    assert doubts[0] == pytest.approx(1.0, abs=0.05)
    assert len(choice.tried) == 3
    assert "0.0" not in {t.name for t in choice.tried}


@pytest.mark.slow
@pytest.mark.parametrize("role", ["mlp_value", "cross_value_weight"])
def test_vectors_are_chosen_only_if_matched_random_ones_do_less(role: str):
    subject = tiny_sd()
    sampling = Sampling(steps=1, guidance=2.0)
    tested = panel(CONCEPT, images=6, others=8)
    options = {"role": role, "counts": (1,), "strengths": (1.0,), "tested": tested}
    options["selection"] = replace(CHOICE, sampling=sampling)
    with pytest.warns(UserWarning, match="100% of answers still show the concept"):
        assert choose_vectors(subject, CONCEPT, recogniser=Cats(torch.zeros(1)), **options) is None


@pytest.mark.slow
def test_vectors_that_pictures_need_are_chosen_with_what_they_were_made_from():
    subject = planted()
    tested = replace(panel(CONCEPT, split="fit", images=9), forget_lists=())
    options = {"counts": (3,), "strengths": (1.0,), "tested": tested}
    options["selection"] = replace(CHOICE, sampling=SAMPLING, goal=0.5)
    choice = choose_vectors(subject, CONCEPT, recogniser=Remembers.of(subject, 0.0015), **options)
    assert choice is not None
    assert choice.name.startswith("3 columns by ")
    assert len(choice.found) == 3
    assert {s.site.item for s in choice.found} == set(PLANTED)
    assert all(s.score.low > 0 and s.score.control == 0 for s in choice.found)


@pytest.mark.filterwarnings("ignore:chosen")
def test_a_list_of_others_that_nobody_recognises_is_told_of():
    subject = tiny_sd()
    nothing = {"a": Edit("a", "cat", {}, subject.weight_hash())}
    options = {
        "recogniser": Cats(torch.zeros(1), others=(1,)),
        "selection": Selection(images=6, sampling=Sampling(steps=1)),
    }
    with pytest.raises(ValueError, match=r"of what others ask for, 'dog' in .* so what they keep can't be said"):
        choose(nothing, subject, CONCEPT, tested=panel(CONCEPT, images=6), **options)
    with pytest.warns(UserWarning, match=r"'sun' and what else the list of .* asks for is seen in none of 4 answers"):
        choice = choose(nothing, subject, CONCEPT, tested=panel(CONCEPT, images=6, others=8), **options)
    assert choice.tried[0].retention() == 1.0
