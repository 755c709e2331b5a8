"""Laws that every eraser keeps, on every family."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from concept_probe.erasers import (
    ERASERS,
    Edit,
)
from concept_probe.families import UNetSubject
from concept_probe.find import find_features, rank_columns
from concept_probe.testing.models.diffusion import DIFFUSION
from concept_probe.types import Query, Subspace
from tests.laws.eraser_aims import column, over, projections, random_sae, read_values, score
from tests.laws.eraser_cases import (
    BAKED,
    BETWEEN,
    CASES,
    CLIMBING,
    CONCEPT,
    LEADING,
    PATCHES,
    SAMPLING,
    TRAINED,
    Erasure,
)
from tests.laws.lm_eraser_cases import METHODS


def test_every_eraser_has_a_case():
    assert set(CASES) | set(METHODS) == set(ERASERS)


@pytest.fixture(scope="module", params=DIFFUSION)
def subject(request) -> UNetSubject:
    return DIFFUSION[request.param]()


@pytest.fixture(scope="module", params=CASES)
def method(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def erasure(subject: UNetSubject, method: str) -> Erasure:
    return CASES[method].aimed(subject)


def pictures(subject: UNetSubject, count: int = 2) -> Tensor:
    return subject.generate([Query(prompt, i) for i, prompt in enumerate(CONCEPT.target.test[:count])], SAMPLING)


def everything(subject: UNetSubject) -> dict[str, Tensor]:
    return {
        f"{component}/{name}": x.clone()
        for component, module in subject.components.items()
        for name, x in module.state_dict(keep_vars=False).items()
    }


def storages(subject: UNetSubject) -> list[int]:
    return [p.data_ptr() for module in subject.components.values() for p in module.parameters()]


def test_it_acts_and_then_every_byte_is_back(subject: UNetSubject, erasure: Erasure):
    weights, pointers, before = everything(subject), storages(subject), pictures(subject)
    with erasure.on(subject):
        during = pictures(subject)
    assert not torch.equal(during, before)
    assert torch.equal(pictures(subject), before)
    assert storages(subject) == pointers
    assert all(torch.equal(x, weights[name]) for name, x in everything(subject).items())


def test_every_byte_is_back_after_an_exception(subject: UNetSubject, erasure: Erasure):
    weights, pointers, before = subject.weight_hash(), storages(subject), pictures(subject)
    with pytest.raises(RuntimeError, match="on purpose"), erasure.on(subject):
        pictures(subject, 1)
        raise RuntimeError("on purpose")
    assert (subject.weight_hash(), storages(subject)) == (weights, pointers)
    assert torch.equal(pictures(subject), before)


def test_strength_zero_changes_no_bit(subject: UNetSubject, erasure: Erasure):
    before = pictures(subject)
    with erasure.scaled(0).on(subject):
        assert torch.equal(pictures(subject), before)


def test_strength_zero_as_an_option_changes_no_bit(subject: UNetSubject, method: str):
    found = aimed_found(subject, method)
    made = ERASERS[method](strength=0.0)(subject, CONCEPT, found)  # pyright: ignore[reportCallIssue]
    before = pictures(subject)
    with made.on(subject):
        assert torch.equal(pictures(subject), before)


def aimed_found(subject: UNetSubject, method: str) -> tuple[Subspace, ...]:
    if method == "ablate_features":
        return find_features(random_sae(subject), subject, CONCEPT, count=6)
    if method in ("steer", "itd"):
        return over(subject)
    if method in PATCHES:
        return over(subject, "cross_out")
    if method in ("rlace", "repit"):
        return projections(subject, method)
    if method == "ablate_vectors":
        return tuple(column(subject, site) for site in rank_columns(subject, CONCEPT).sites[:8])
    return ()


EMPTY = {
    "ablate_features": lambda s: Subspace(
        random_sae(s).site, torch.zeros(16, 0), "activation", score(), codec=random_sae(s)
    ),
    "ablate_vectors": lambda s: Subspace(s.sites("cross_value_weight")[0], torch.zeros(16, 0), "parameter", score()),
    "leace": lambda s: Subspace(
        s.sites("text_out")[0], torch.zeros(16, 0), "activation", score(), dual=torch.zeros(16, 0)
    ),
} | dict.fromkeys(
    ("difference", "rlace", "repit"),
    lambda s: Subspace(s.sites("text_out")[0], torch.zeros(16, 0), "activation", score()),
)


@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_subspace_changes_no_bit(subject: UNetSubject, name: str):
    made = ERASERS[name]()(subject, CONCEPT, (EMPTY[name](subject),))
    before = pictures(subject)
    with made.on(subject):
        assert torch.equal(pictures(subject), before)


def test_same_seed_same_result(subject: UNetSubject, method: str, erasure: Erasure):
    again = CASES[method].aimed(subject)
    with erasure.on(subject):
        first = pictures(subject)
    with again.on(subject):
        assert torch.equal(pictures(subject), first)
    assert again.describe() == erasure.describe()


def test_batch_size_and_order_change_nothing(subject: UNetSubject, erasure: Erasure):
    queries = [Query(p, i) for i, p in enumerate((*CONCEPT.target.test, *CONCEPT.unrelated.test))]
    with erasure.on(subject):
        whole = subject.generate(queries, SAMPLING)
        parts = subject.generate(queries[::-1], replace(SAMPLING, batch=2)).flip(0)
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)  # guidance multiplies the rounding of its products


def test_the_target_moves_more_than_under_a_random_aim(subject: UNetSubject, method: str, erasure: Erasure):
    if method in LEADING:
        pytest.skip("acts on every prompt alike; the next law says where it leads")
    if method in BETWEEN:
        pytest.skip("acts where a picture looks like the concept, and no picture of a random model does")
    if method in TRAINED:
        pytest.skip("weights move for all prompts; the law after the next says where they lead")
    if method in CLIMBING:
        pytest.skip("leads nowhere in particular; the last of these laws asks the pictures that it learned from")
    own, others = (
        (*splits.fit, *splits.test) for splits in (CONCEPT.target, CONCEPT.unrelated)
    )  # the same sentences, word for word, about the concept and about something else
    role = "denoiser_out" if method in PATCHES else "cross_value"

    def both() -> tuple[Tensor, Tensor]:
        return read_values(subject, own, role), read_values(subject, others, role)

    before = both()

    def moved(made: Erasure) -> float:
        """How far the target moves relative to the other prompts: what happens to both alike doesn't count."""
        with made.on(subject):
            change = [x - y for x, y in zip(both(), before, strict=True)]
        apart = float(torch.linalg.vector_norm(change[0] - change[1]))
        # Random features of a random model fire everywhere: there it's the share of the change that counts.
        whole = float(torch.stack([x.square().sum() for x in change]).sum().sqrt()) if method in PATCHES else 1.0
        return apart / whole if whole else 0.0

    random = [moved(CASES[method].random(subject, seed)) for seed in range(8)]
    assert moved(erasure) > sum(random) / len(random)


@pytest.mark.parametrize("name", BAKED)
@pytest.mark.parametrize("family", DIFFUSION)
def test_bake_equals_on(family: str, name: str):
    fresh = DIFFUSION[family]()
    edit = CASES[name].aimed(fresh)
    assert isinstance(edit, Edit)
    with edit.on(fresh):
        during, edited = pictures(fresh), fresh.weight_hash()
    edit.bake(fresh)
    assert fresh.weight_hash() == edited
    assert torch.equal(pictures(fresh), during)


def test_save_and_load_give_the_same_edit(subject: UNetSubject, method: str, erasure: Erasure, tmp_path):
    if method not in BAKED:
        pytest.skip("nothing of it is in the weights")
    assert isinstance(erasure, Edit)
    read = Edit.load(erasure.save(tmp_path / "edit"))
    assert read.describe() == erasure.describe()
    with erasure.on(subject):
        first = subject.weight_hash()
    with read.on(subject):
        assert subject.weight_hash() == first
