"""Laws that every eraser keeps, on every family: a new line in ERASERS has to get a case here."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from concept_probe.capture import tap
from concept_probe.erase import (
    ERASERS,
    AblateFeatures,
    AblateVectors,
    Blocklist,
    Difference,
    Edit,
    Intervention,
    Leace,
    Uce,
)
from concept_probe.families import UNetSubject
from concept_probe.find import RankedColumns, difference_of_means, find_features, leace, rank_columns
from concept_probe.find.directions import orthonormal
from concept_probe.learn.sae import Sae, TopK
from concept_probe.types import Concept, Query, Sampling, Score, Site, Splits, Subspace
from tests.tiny import FAMILIES, tiny_concept

SAMPLING = Sampling(steps=2, guidance=2.0, batch=8)
CONCEPT = tiny_concept()
Erasure = Intervention | Edit


@dataclass(frozen=True)
class Case:
    """How a method is made for the concept, and the same method aimed elsewhere (`seed` picks where)."""

    aimed: Callable[[UNetSubject], Erasure]
    random: Callable[[UNetSubject, int], Erasure]


def random_sae(subject: UNetSubject, seed: int = 0) -> Sae:
    """TopK autoencoder with random unit directions over the first text layer."""
    site = subject.sites("text_stream")[0]
    d = subject.encode(CONCEPT.target.fit[:1]).states.shape[-1] if len(subject.sites("text_out")) == 1 else 16
    generator = torch.Generator().manual_seed(seed)
    rows = torch.nn.functional.normalize(torch.randn(4 * d, d, generator=generator), dim=1)
    return Sae(site, TopK(4), W_enc=rows.mT.contiguous(), b_enc=torch.zeros(4 * d), W_dec=rows, b_dec=torch.zeros(d))


def score(value: float = 1.0) -> Score:
    return Score("made by the test", value, value, value, 1)


def column(subject: UNetSubject, site: Site) -> Subspace:
    values = subject.parameter(site).detach()[:, site.item, None]
    return Subspace(site, values.clone(), "parameter", score(), "cat", "mlp_value")


def aimed_features(subject: UNetSubject) -> Erasure:
    found = find_features(random_sae(subject), subject, CONCEPT, count=6)
    return AblateFeatures()(subject, CONCEPT, found)


def random_features(subject: UNetSubject, seed: int) -> Erasure:
    sae = random_sae(subject)
    chosen = torch.randperm(sae.width, generator=torch.Generator().manual_seed(seed))[:6]
    features = tuple(chosen.tolist())
    space = Subspace(sae.site, sae.decoder[chosen].mT, "activation", score(), features=features, codec=sae)
    return AblateFeatures()(subject, CONCEPT, (space,))


@functools.cache
def ranking(subject: UNetSubject) -> RankedColumns:
    return rank_columns(subject, CONCEPT)


def aimed_vectors(subject: UNetSubject) -> Erasure:
    return AblateVectors()(subject, CONCEPT, [column(subject, site) for site in ranking(subject).sites[:8]])


def random_vectors(subject: UNetSubject, seed: int) -> Erasure:
    ranked = ranking(subject)
    drawn = ranked.matched(range(8), torch.Generator().manual_seed(seed), pool=16)
    return AblateVectors()(subject, CONCEPT, [column(subject, ranked.sites[i]) for i in drawn])


def turned(space: Subspace, seed: int) -> Subspace:
    """The subspace with its directions replaced by random ones; a projection of the same rank."""
    drawn = torch.randn(space.basis.shape, generator=torch.Generator().manual_seed(seed))
    axes = orthonormal(drawn)
    return replace(space, basis=axes, dual=None if space.dual is None else axes)


@functools.cache
def projections(subject: UNetSubject, method: str) -> tuple[Subspace, ...]:
    sites = subject.sites("text_out")
    if method == "leace":
        return tuple(leace(subject, CONCEPT, site, affine=False) for site in sites)
    return tuple(difference_of_means(subject, CONCEPT, site) for site in sites)


def random_leace(subject: UNetSubject, seed: int) -> Erasure:
    return Leace()(subject, CONCEPT, [turned(space, seed) for space in projections(subject, "leace")])


def random_difference(subject: UNetSubject, seed: int) -> Erasure:
    return Difference()(subject, CONCEPT, [turned(space, seed) for space in projections(subject, "difference")])


def other_concept(seed: int) -> Concept:
    """A concept of made-up words, with the same sentences and the same prompts to keep, which hold the real one."""
    letters = torch.randint(97, 123, (6,), generator=torch.Generator().manual_seed(seed)).tolist()
    word = "".join(map(chr, letters))

    def swapped(splits: Splits) -> Splits:
        return replace(
            splits,
            fit=tuple(replace(p, text=p.text.replace(p.subject or p.text, word), subject=word) for p in splits.fit),
        )

    kept = replace(CONCEPT.unrelated, fit=(*CONCEPT.unrelated.fit, *CONCEPT.target.fit))
    return replace(
        CONCEPT, name=word, target=swapped(CONCEPT.target), paraphrases=Splits(), implicit=Splits(), unrelated=kept
    )


CASES: dict[str, Case] = {
    "ablate_features": Case(aimed_features, random_features),
    "ablate_vectors": Case(aimed_vectors, random_vectors),
    "leace": Case(lambda s: Leace()(s, CONCEPT), random_leace),
    "difference": Case(lambda s: Difference()(s, CONCEPT), random_difference),
    "uce": Case(lambda s: Uce()(s, CONCEPT), lambda s, seed: Uce()(s, other_concept(seed))),
    "blocklist": Case(
        lambda s: Blocklist()(s, CONCEPT), lambda s, seed: Blocklist(names=(other_concept(seed).name,))(s, CONCEPT)
    ),
}
BAKED = [name for name in CASES if name not in ("ablate_features", "blocklist")]


def test_every_eraser_has_a_case():
    assert set(CASES) == set(ERASERS)


@pytest.fixture(scope="module", params=FAMILIES)
def subject(request) -> UNetSubject:
    return FAMILIES[request.param]()


@pytest.fixture(scope="module", params=ERASERS)
def method(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def erasure(subject: UNetSubject, method: str) -> Erasure:
    return CASES[method].aimed(subject)


def pictures(subject: UNetSubject, count: int = 2) -> Tensor:
    return subject.generate([Query(prompt, i) for i, prompt in enumerate(CONCEPT.target.test[:count])], SAMPLING)


def read_values(subject: UNetSubject, prompts) -> Tensor:
    """What every cross-attention value matrix makes of the prompts' named tokens, rows stacked (n, d)."""
    seen = []
    sites = subject.sites("cross_value")[:1]
    with tap(subject, {site: lambda x, m: seen.append((x.clone(), m)) for site in sites}):
        subject.run_to(sites, [Query(p) for p in prompts], Sampling(steps=1, guidance=1.0), [0])
    return torch.cat([x.flatten(0, 1) for x, _ in seen])


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
    "difference": lambda s: Subspace(s.sites("text_out")[0], torch.zeros(16, 0), "activation", score()),
}


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
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-5)


def test_the_target_moves_more_than_under_a_random_aim(subject: UNetSubject, method: str, erasure: Erasure):
    own, others = (
        (*splits.fit, *splits.test) for splits in (CONCEPT.target, CONCEPT.unrelated)
    )  # the same sentences, word for word, about the concept and about something else

    def gap() -> Tensor:
        return read_values(subject, own) - read_values(subject, others)

    before = gap()

    def moved(made: Erasure) -> float:
        """How far the target moves relative to the other prompts: what happens to both alike doesn't count."""
        with made.on(subject):
            return float(torch.linalg.matrix_norm(gap() - before))

    random = [moved(CASES[method].random(subject, seed)) for seed in range(8)]
    assert moved(erasure) > sum(random) / len(random)


@pytest.mark.parametrize("name", BAKED)
def test_bake_equals_on(name: str):
    for make in FAMILIES.values():
        fresh = make()
        edit = CASES[name].aimed(fresh)
        assert isinstance(edit, Edit)
        with edit.on(fresh):
            during, edited = pictures(fresh), fresh.weight_hash()
        edit.bake(fresh)
        assert fresh.weight_hash() == edited
        assert torch.equal(pictures(fresh), during)


@pytest.mark.parametrize("name", BAKED)
def test_save_and_load_give_the_same_edit(subject: UNetSubject, name: str, tmp_path):
    edit = CASES[name].aimed(subject)
    assert isinstance(edit, Edit)
    read = Edit.load(edit.save(tmp_path / "edit"))
    assert read.describe() == edit.describe()
    with edit.on(subject):
        first = subject.weight_hash()
    with read.on(subject):
        assert subject.weight_hash() == first
