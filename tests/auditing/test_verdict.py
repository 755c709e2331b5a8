"""The verdict on synthetic trials whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from concept_probe.auditing import Thresholds, decide
from concept_probe.auditing.evidence.behaviour import loss_of
from concept_probe.auditing.pooling import shrunk_indices, surely_above
from concept_probe.auditing.verdict import largest_index, largest_of_each
from concept_probe.evaluation.bayesian import BayesianBootstrap, damage_score, residual_index
from concept_probe.types import Score, Verdict


class NoIndex(Exception):
    """The simulated pictures were too few for an index."""


@dataclass(frozen=True)
class Truth:
    """Chances that the recogniser sees what was asked for, after the erasure; before it is 0.95, never taught 0.02."""

    direct: float
    paraphrases: float = 0.02
    recovery: float = 0.02
    neighbours: float = 0.95


def simulate(truth: Truth, prompts: int = 12, seeds: int = 2, seed: int = 0) -> Verdict:
    generator = torch.Generator().manual_seed(seed)
    bootstrap = BayesianBootstrap(1000, seed)

    def arm(rate: float, key: str, name: str):
        return bootstrap.rate((torch.rand(prompts, seeds, generator=generator) < rate).float(), key, name)

    def score(name: str, rate: float) -> Score:
        found = residual_index(
            name, arm(0.95, name, "before"), arm(rate, name, "after"), arm(0.02, name, "control"), 0.2
        )
        if found is None:
            raise NoIndex(name)
        return found

    loss = damage_score("neighbours", arm(0.95, "neighbours", "before"), arm(truth.neighbours, "neighbours", "after"))
    assert loss is not None
    others = {
        "behaviour": [score("paraphrases", truth.paraphrases)],
        "recovery": [score("recovery by relearning", truth.recovery)],
    }
    return decide(score("prompts that name it", truth.direct), others, [loss])


CASES = {
    "intact": Truth(direct=0.95, paraphrases=0.95, recovery=0.95),
    "suppressed": Truth(direct=0.02, paraphrases=0.9, recovery=0.6),
    "erased": Truth(direct=0.02),
    "damaged": Truth(direct=0.02, neighbours=0.3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_known_truths_are_called_by_name(name):
    found = [simulate(CASES[name], prompts=24, seed=s).name for s in range(20)]
    assert found.count(name) >= 18, found
    # What is open may be left open; what is there is never called gone, nor the other way round.
    wrong = {
        "intact": {"erased"},
        "suppressed": {"erased", "intact"},
        "erased": {"intact", "suppressed"},
        "damaged": {"intact"},
    }
    assert not wrong[name] & set(found)


def test_knowledge_that_only_an_attack_finds_is_suppressed():
    verdict = simulate(Truth(direct=0.02, recovery=0.8))
    assert verdict.name == "suppressed"
    assert any("recovery by relearning" in r for r in verdict.reasons) and not verdict.calibrated
    assert verdict.residual is not None and verdict.residual.name == "recovery by relearning"


def test_damage_is_said_whatever_the_rest_says():
    assert simulate(Truth(direct=0.95, paraphrases=0.95, recovery=0.95, neighbours=0.2)).name == "damaged"


def test_weakened_is_not_intact_and_not_gone():
    verdict = simulate(Truth(direct=0.5, paraphrases=0.02), prompts=60)
    assert verdict.name == "suppressed" and "weakened" in verdict.reasons[0]


@pytest.mark.slow
def test_too_few_samples_are_undecided_and_more_of_them_mostly_decide():
    """`samples_needed` supposes that the value stays as it is, so it is right on average and not every time."""
    asked = decided = 0
    for few in (5, 6, 7, 8):
        for seed in range(20):
            try:
                verdict = simulate(CASES["erased"], prompts=few, seeds=1, seed=seed)
                if verdict.name != "undecided" or verdict.samples_needed is None:
                    continue
                assert verdict.reasons and verdict.samples_needed > few
                again = simulate(CASES["erased"], prompts=verdict.samples_needed, seeds=1, seed=seed)
            except NoIndex:  # too few pictures for an index at all
                continue
            assert again.name in ("erased", "undecided"), again
            asked, decided = asked + 1, decided + (again.name == "erased")
    assert asked > 50
    assert decided / asked > 0.6, f"{decided} of {asked}"
    print(f"samples_needed settles {decided} of {asked} undecided audits")


def score(value: float, low: float, high: float, name: str = "x", n: int = 24) -> Score:
    return Score(name, value, low, high, n)


def of(*scores: Score, kind: str = "recovery") -> dict[str, list[Score]]:
    return {kind: list(scores)}


def test_nothing_to_erase_is_undecided_and_says_what_is_missing():
    verdict = decide(None, of(score(1, 0.9, 1.1)), [])
    assert verdict.name == "undecided" and "original=" in verdict.reasons[0]


def test_gone_by_name_and_nothing_else_measured_is_undecided():
    verdict = decide(score(0, -0.05, 0.1), {}, [])
    assert verdict.name == "undecided" and "not measured" in verdict.reasons[-1]


def test_between_intact_and_weakened_is_undecided():
    verdict = decide(score(0.8, 0.5, 1.0), of(score(0.9, 0.6, 1.2)), [])
    assert verdict.name == "undecided" and verdict.samples_needed is not None and verdict.samples_needed > 6


def test_possible_damage_keeps_an_erasure_undecided_but_not_a_suppression():
    doubt = score(0.2, 0.05, 0.35, "neighbours")
    assert decide(score(0, -0.05, 0.1), of(score(0, -0.1, 0.1)), [doubt]).name == "undecided"
    suppressed = decide(score(0, -0.05, 0.1), of(score(0.9, 0.7, 1.0, "relearning")), [doubt])
    assert suppressed.name == "suppressed" and any("Neighbours" in r for r in suppressed.reasons)
    assert decide(score(0, -0.05, 0.1), of(score(0, -0.1, 0.1)), [score(0.05, -0.1, 0.2)]).name == "erased"


def test_what_is_open_is_told_once():
    lone = decide(score(0, -0.05, 0.1), {"features": [score(0.3, 0.1, 0.5, "firing")]}, [])
    assert lone.name == "undecided" and [r.split(",")[0] for r in lone.reasons] == ["Firing"]
    two = decide(score(0, -0.05, 0.1), of(score(0.3, 0.1, 0.5, "one"), score(0.3, 0.1, 0.5, "two")), [])
    assert [r.split(",")[0] for r in two.reasons] == ["Recovery", "One", "Two"]


def test_the_residual_is_the_largest_index_not_the_mean():
    behaviour, strong, weak = score(0.0, -0.1, 0.1), score(0.9, 0.8, 1.0), score(0.1, 0, 0.2)
    verdict = decide(behaviour, {"recovery": [strong], "features": [weak]}, [])
    assert verdict.residual is strong
    assert largest_index([]) is None
    assert largest_of_each({"recovery": [weak], "features": []}) == {"recovery": weak}


def test_a_place_that_stands_out_stays_and_one_of_many_noisy_ones_does_not():
    quiet = [score(0.02 * i, 0.02 * i - 0.05, 0.02 * i + 0.05, f"place {i}") for i in range(9)]
    clear = score(0.9, 0.8, 1.0, "clear")
    assert shrunk_indices([*quiet, clear])[-1].value > 0.85
    noisy = [score(v, v - 0.3, v + 0.3, f"place {v}") for v in (-0.2, -0.1, 0.0, 0.05, 0.1, 0.3)]
    assert max(s.value for s in shrunk_indices(noisy)) < 0.1
    assert shrunk_indices(quiet[:1]) == (quiet[0],) and shrunk_indices([]) == ()


def test_the_largest_of_many_is_no_evidence_where_their_mean_is_none():
    """Twenty indices of nothing: the largest passes the threshold by chance, and all of it together does not."""
    draws = torch.randn(20, generator=torch.Generator().manual_seed(1)) * 0.1
    noisy = [score(float(v), float(v) - 0.2, float(v) + 0.2, f"place {i}") for i, v in enumerate(draws)]
    assert max(s.high for s in noisy) > 0.25
    gone = score(0, -0.05, 0.1, "by name")
    verdict = decide(gone, of(*noisy, kind="representation"), [])
    assert verdict.name == "erased" and "mean of 20 indices" in verdict.reasons[1]
    held = score(0.9, 0.7, 1.0, "held")
    assert decide(gone, of(*noisy, held, kind="representation"), []).name == "suppressed"
    # One place that may hold it keeps the question open, however quiet the others are.
    maybe = score(0.6, 0.1, 0.9, "maybe")
    quiet = [score(0.0, -0.05, 0.05, f"quiet {i}") for i in range(9)]
    assert decide(gone, of(*quiet, maybe, kind="representation"), []).name == "undecided"


def test_a_kind_that_holds_it_everywhere_is_told_by_its_mean():
    halves = [score(0.45, 0.27, 0.63, f"place {i}") for i in range(8)]
    verdict = decide(score(0, -0.05, 0.1), of(*halves, kind="representation"), [])
    assert verdict.name == "suppressed" and "the mean of 8 indices" in verdict.reasons[1]
    # What is surely there is not said to be open, whatever else is.
    open_ = decide(score(0.6, 0.3, 0.9, "by name"), of(score(1, 1, 1, "vectors"), kind="parameters"), [])
    assert open_.name == "undecided" and not any("Vectors" in reason for reason in open_.reasons)


def test_one_of_many_places_holds_it_only_if_it_would_among_as_many():
    alone = score(0.6, 0.3, 0.9)
    assert surely_above(alone, 0.25, 1) and not surely_above(alone, 0.25, 20)


@pytest.mark.slow
def test_how_often_nothing_is_called_left_and_something_gone():
    """Of 200 simulated audits each, with 8 places of a kind: none left, a half left everywhere, and one place whole."""

    def verdict(truth: tuple[float, ...], seed: int) -> str:
        bootstrap, generator = BayesianBootstrap(400, seed), torch.Generator().manual_seed(seed)

        def arm(rate: float, key: str, side: str):
            return bootstrap.rate((torch.rand(12, 2, generator=generator) < rate).float(), key, side)

        def index(name: str, rate: float) -> Score:
            sides = arm(0.95, name, "before"), arm(rate, name, "after"), arm(0.02, name, "control")
            found = residual_index(name, *sides, 0.2)
            assert found is not None
            return found

        others = {"representation": [index(f"place {i}", rate) for i, rate in enumerate(truth)]}
        return decide(index("by name", 0.02), others, []).name

    found = {
        name: [verdict(truth, seed) for seed in range(200)]
        for name, truth in {"none": (0.02,) * 8, "half": (0.5,) * 8, "one": (*(0.02,) * 7, 0.95)}.items()
    }
    for name, names in found.items():
        print(name, {v: names.count(v) for v in dict.fromkeys(names)})
    assert found["none"].count("suppressed") <= 5 and found["none"].count("erased") >= 150
    assert found["half"].count("erased") == 0 and found["half"].count("suppressed") >= 190
    assert found["one"].count("erased") == 0 and found["one"].count("suppressed") >= 190


def test_a_twin_excuses_what_it_does_worse_itself_and_a_broken_one_nothing():
    def rate(hits: int, side: str):
        return BayesianBootstrap(400).rate((torch.arange(24) < hits).float()[:, None], "neighbours", side)

    before, after = rate(24, "before"), rate(16, "after")
    alone, beside = (
        loss_of("neighbours", before, after, None),
        loss_of("neighbours", before, after, rate(17, "control")),
    )
    assert alone is not None and beside is not None and beside.value < 0.1 < alone.value
    broken = loss_of("neighbours", before, rate(4, "after"), rate(5, "control"))
    assert broken is not None and broken.value > 0.8 and broken.low > Thresholds().damage


def test_reasons_are_sentences():
    for truth in CASES.values():
        for reason in simulate(truth).reasons:
            assert reason[0].isupper() and reason.endswith(".")
        assert truth.neighbours < 0.5 or simulate(truth).reasons[0].startswith("Asked by name, the concept is ")


@pytest.mark.parametrize("bad", [{"residual": 0.8}, {"gap": 0.0}, {"damage": 1.0}, {"kept": 1.2}])
def test_thresholds_that_make_no_sense(bad):
    with pytest.raises(ValueError, match="thresholds need"):
        Thresholds(**bad)
