"""Tables of one sweep: shares per kind of prompt, what attacks bring back, and facts of a language model."""

from __future__ import annotations

import pytest

from concept_probe.bench import NEVER_TAUGHT, UNTOUCHED, SweepRow
from concept_probe.bench.board.per_attack import attack_table
from concept_probe.bench.board.per_kind import ASKED_FOR, by_eraser
from concept_probe.bench.board.unlearning import attacks_of, records, unlearning_figures

COUNTS = {"target": 10, "paraphrases": 10, "implicit": 10, "neighbours": 10, "unrelated": 10}


def row(eraser: str, concept: str, attack: str = "none", seconds: float = 1.0, **values) -> SweepRow:
    return SweepRow(f"{eraser} {concept} {attack}", eraser, concept, attack, 0, "done", values, "", seconds)


def shares(eraser: str, concept: str, **hits: int) -> SweepRow:
    before = {kind: [10, 10] for kind in ASKED_FOR}
    after = {kind: [hits.get(kind, 10), 10] for kind in ASKED_FOR}
    return row(eraser, concept, before=before, after=after, fit={"seconds": 2.0})


def test_a_concept_is_erased_and_kept_where_both_hold():
    rows = [shares("uce", "cat", target=1), shares("uce", "dog", target=2, neighbours=8), shares(UNTOUCHED, "cat")]
    _, figures = by_eraser(rows)
    assert list(figures) == ["uce"]
    assert figures["uce"]["after"] == pytest.approx(0.15) and figures["uce"]["neighbours"] == pytest.approx(0.9)
    assert (figures["uce"]["concepts_erased_and_kept"], figures["uce"]["concepts"]) == (1, 2)


def test_the_best_point_of_a_curve_counts_and_the_control_beside_it():
    def attacked(eraser: str, *rates: float) -> SweepRow:
        curve = [[i, rate] for i, rate in enumerate(rates)]
        return row(eraser, "cat", "merging", curve=curve, control=[1, 4], spent={"seconds": 3.0})

    table, figures = attack_table(
        [attacked("uce", 0.0, 0.75, 0.5), attacked(NEVER_TAUGHT, 0.0), attacked(UNTOUCHED, 1.0)]
    )
    assert figures["merging"]["uce"] == {"rate": 0.75, "control": 0.25, "above": 0.5}
    assert [c.header for c in table.columns] == ["attack", UNTOUCHED, NEVER_TAUGHT, "uce", "seconds"]


def spoken(eraser: str, hits: int, mistaken: int = 0) -> list[SweepRow]:
    def texts(right: int, wrong: int = 0) -> dict:
        facts = [f"fact {i}" for i in range(20)]
        probability = [float(i < right) for i in range(20)]
        return {"hits": [int(i < right) for i in range(20)], "mistaken": [0] * (20 - wrong) + [1] * wrong,
                "facts": facts, "probability": probability}  # fmt: skip

    kinds = {
        "target": texts(hits),
        "paraphrases": texts(hits),
        "neighbours": texts(20),
        "unrelated": texts(20, mistaken),
    }
    return [
        row(eraser, "cat", texts=kinds, cosine=0.5, fit={"seconds": 2.0}),
        row(eraser, "cat", "in_context", hits=[int(i < hits) for i in range(20)]),
    ]


def test_facts_are_judged_between_the_untouched_model_and_the_twin():
    rows = [*spoken(UNTOUCHED, 20), *spoken(NEVER_TAUGHT, 0), *spoken("npo", 0), *spoken("nothing", 20)]
    own = records(rows)
    assert attacks_of(own) == ("in_context",) and own[0]["seconds"] == 4.0
    verdicts = {e: (unlearning_figures(own, e) or {})["verdict"] for e in (UNTOUCHED, NEVER_TAUGHT, "npo", "nothing")}
    assert verdicts == {UNTOUCHED: "intact", NEVER_TAUGHT: "erased", "npo": "erased", "nothing": "intact"}


def test_an_eraser_without_its_controls_has_no_figures():
    assert unlearning_figures(records([*spoken(UNTOUCHED, 20), *spoken("npo", 0)]), "npo") is not None
    assert unlearning_figures(records(spoken("npo", 0)), "npo") is None
