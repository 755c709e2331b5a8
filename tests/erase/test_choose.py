"""Choosing by measurement: the gentlest erasure that reaches the goal and keeps the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from concept_probe.erase import AblateVectors, choose
from concept_probe.erase.choose import Tried, _best
from concept_probe.types import Sampling, Score, Site, Subspace
from tests.tiny import tiny_concept, tiny_sd

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


def score(value: float, control: float = 1.0) -> Score:
    return Score("x", value, value, value, 8, control=control)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"a": (0.5, 1.0), "b": (0.05, 0.95), "c": (0.0, 0.95)}, "b"),
        ({"a": (0.5, 1.0), "b": (0.3, 0.95), "c": (0.0, 0.5)}, "b"),
        ({"a": (0.0, 0.2), "b": (0.1, 0.4)}, "b"),
    ],
)
def test_the_rule(table: Mapping[str, tuple[float, float]], expected: str):
    tried = [Tried(name, score(gone), score(stay)) for name, (gone, stay) in table.items()]
    assert _best(tried, 0.1, 0.9).name == expected


def test_it_measures_each_erasure_on_the_same_pictures():
    from concept_probe.find.causal import panel

    subject = tiny_sd()
    sampling = Sampling(steps=2, guidance=2.0)
    tested = panel(CONCEPT, images=6)
    recogniser = Sums(subject.generate(tested.gone, sampling))
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
                    sampling=sampling)  # fmt: skip
    assert [t.gone.value for t in choice.tried] == [1.0, 0.0]
    assert all(t.gone.control == 1.0 for t in choice.tried)
    assert choice.name == "on"
    assert choice.erasure is strong
    with pytest.raises(ValueError, match="no erasure"):
        choose({}, subject, CONCEPT, recogniser=recogniser)
