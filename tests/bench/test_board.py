"""A leaderboard of rows whose outcome is known, and tests whose p can be counted by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from concept_probe.bench import NEVER_TAUGHT, NONE, UNTOUCHED, SweepRow
from concept_probe.bench.board.leaderboard import beats, front, leaderboard
from concept_probe.bench.board.scores import area
from concept_probe.evaluation.paired import holm, sign_flip
from concept_probe.figures import pareto
from concept_probe.report import board_to_html, board_to_json, board_to_markdown

CONCEPTS, SEEDS = ("camel", "pizza", "contrast"), (0, 1, 2)


def cells(eraser: str, target: int, others: int, success: int, *, found: bool = True) -> list[SweepRow]:
    """`target` and `others` right of 10 after the erasure, `success` of 8 under attack, on every concept and seed."""
    out = []
    for concept in CONCEPTS:
        for seed in SEEDS:
            before = {"target": [10, 10], "paraphrases": [8, 8], "neighbours": [10, 10], "unrelated": [10, 10]}
            after = {
                "target": [target, 10],
                "paraphrases": [target, 10],
                "neighbours": [others, 10],
                "unrelated": [others, 10],
            }
            values = {
                "before": before, "after": after, "across before": [20, 20], "across after": [20, 20], "found": found,
                "pixels kept": 0.1, "pixels control": 0.2, "fit": {"seconds": 2.0, "numbers": 7},
            }  # fmt: skip
            key = f"{eraser}/{concept}/{seed}"
            out.append(SweepRow(key, eraser, concept, NONE, seed, "done", values))
            attack = {"success": [success, 8], "control": [1, 8]}
            out.append(SweepRow(f"{key}/x", eraser, concept, "relearning", seed, "done", attack))
    return out


def rows() -> list[SweepRow]:
    return [
        *cells(UNTOUCHED, 10, 10, 8), *cells(NEVER_TAUGHT, 0, 10, 2), *cells("good", 0, 10, 3), *cells("harsh", 0, 4, 2),
        *cells("weak", 8, 9, 8),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def board():
    return leaderboard(rows(), subject="emoji", ours=("good",))


def test_rates_are_those_of_the_rows(board):
    standing = {s.name: s for s in board.standings}
    good = standing["good"]
    assert (good.erased.value, good.kept.value, good.part) == (1.0, 1.0, "ours")
    assert good.recovered is not None and good.recovered.value == pytest.approx(3 / 8 - 2 / 8), "above the twin's"
    assert good.harmonic.value == pytest.approx(1.0)
    assert standing["harsh"].harmonic.value == pytest.approx(3 / (1 + 1 + 1 / 0.4))
    assert standing[UNTOUCHED].kept.low == standing[UNTOUCHED].kept.high == 1.0, "one sample, not two"
    assert standing[NEVER_TAUGHT].recovered.value == 0.0  # pyright: ignore[reportOptionalMemberAccess]
    for s in board.standings:
        assert s.erased.low <= s.erased.value <= s.erased.high and s.blocks == 9
    assert [s.name for s in board.standings][:3] == ["good", "harsh", "weak"]


def test_without_a_twin_the_control_is_the_attacks_own():
    alone = leaderboard([r for r in rows() if r.eraser != NEVER_TAUGHT], subject="emoji")
    (good,) = [s for s in alone.standings if s.name == "good"]
    assert good.recovered is not None and good.recovered.value == pytest.approx(3 / 8 - 1 / 8)
    assert "random candidate" in alone.control


def test_the_front_holds_those_that_no_other_beats_on_both(board):
    assert board.front == ("good", "harsh")
    standing = {s.name: s for s in board.standings}
    assert beats(standing["good"], standing["weak"]) and not beats(standing["harsh"], standing["good"])
    tied = replace(standing["good"], name="tied", kept=replace(standing["good"].kept, value=0.5))
    assert beats(standing["good"], tied) and not beats(tied, standing["good"]) and not beats(tied, tied)
    assert front(()) == ()


def test_differences_are_paired_and_corrected(board):
    found = {(d.measure, d.first, d.second): d for d in board.differences}
    erased = found["erased", "good", "weak"]
    assert erased.value == pytest.approx(0.8) and erased.n == 9
    assert erased.p == pytest.approx(2 / 2**9) and erased.adjusted == pytest.approx(3 * 2 / 2**9)
    assert found["erased", "good", "harsh"].adjusted == 1.0


def test_an_attack_that_not_every_eraser_met_is_part_of_no_mean():
    more = [SweepRow(f"{r.key}/y", r.eraser, r.concept, "easy", r.seed, "done", {"success": [8, 8], "control": [0, 8]})
            for r in rows() if r.attack == NONE and r.eraser in ("good", NEVER_TAUGHT)]  # fmt: skip
    board = leaderboard([*rows(), *more], subject="emoji")
    (good,) = [s for s in board.standings if s.name == "good"]
    assert good.recovered is not None and good.recovered.value == pytest.approx(1 / 8)
    assert set(good.attacks) == {"relearning", "easy"} and "no worst attack: easy." in board.notes[0]


def test_means_are_over_the_cells_that_every_eraser_met():
    """One eraser is ahead of the others on a concept of its own, where every attack fails."""
    ahead = [
        replace(r, key=f"{r.key}/more", concept="guitar", values={**r.values, **({"success": [0, 8]} if r.attack != NONE else {})})
        for r in rows() if r.concept == "camel" and r.eraser in ("good", NEVER_TAUGHT)
    ]  # fmt: skip
    board = leaderboard([*rows(), *ahead], subject="emoji")
    (good,) = [s for s in board.standings if s.name == "good"]
    assert good.recovered is not None and good.recovered.value == pytest.approx(1 / 8)
    assert "Not measured on every concept and seed yet: " in " ".join(board.notes)
    assert good.blocks == 9 and set(good.concepts) == {"camel", "pizza", "contrast"}, "what is ahead counts nowhere"


def test_an_eraser_that_is_behind_takes_no_cell_from_the_others():
    behind = [r for r in rows() if r.eraser != "weak" or (r.concept, r.seed) == ("camel", 0)]
    board = leaderboard(behind, subject="emoji")
    standing = {s.name: s for s in board.standings}
    good, weak = standing["good"], standing["weak"]
    assert good.recovered is not None and good.recovered.n == 9 * 8 and board.pairs == 9
    assert weak.recovered is None and weak.worst is None and weak.attacks["relearning"].n == 8
    assert [s.name for s in board.standings][:3] == ["good", "harsh", "weak"] and "weak" not in board.front
    assert "to be compared in what is recovered: weak." in board.notes[0]
    assert board_to_markdown(board).startswith("# 2 erasers on emoji, and 1 in part\n")


def test_an_attack_that_one_concept_does_not_allow_is_compared_on_the_others():
    kept = [r for r in rows() if r.attack == NONE or r.concept != "contrast"]
    other = [replace(r, key=f"{r.key}/y", attack="easy") for r in rows() if r.attack != NONE]
    board = leaderboard([*kept, *other], subject="emoji")
    (good,) = [s for s in board.standings if s.name == "good"]
    assert set(board.compared) == {"relearning", "easy"} and board.pairs == 9
    assert good.recovered is not None and good.recovered.n == 15 * 8
    recovery = [d for d in board.differences if d.measure == "recovered"]
    assert recovery and all(d.n == 9 for d in recovery)


def test_what_is_missing_is_said():
    some = [r for r in rows() if not (r.eraser == "good" and r.seed == 2)]
    some += [
        SweepRow("f", "broken", "camel", NONE, 0, "failed", {}, "ValueError: no"),
        *cells("empty", 10, 10, 8, found=False),
    ]
    notes = " ".join(leaderboard(some, subject="emoji").notes)
    assert "yet: good." in notes and "broken: 1 cell failed (camel): ValueError: no" in notes
    assert "change no weight" not in notes, "all of these store numbers"
    assert "empty found nothing to erase for camel, pizza, contrast" in notes
    with pytest.raises(ValueError, match="run the sweep first"):
        leaderboard([], subject="emoji")


def test_guards_are_named_since_attacks_on_weights_miss_them():
    free = [
        replace(r, values={**r.values, "fit": {"numbers": 0}}) if r.eraser == "weak" and r.attack == NONE else r
        for r in rows()
    ]
    assert any("change no weight" in n and n.endswith(": weak.") for n in leaderboard(free, subject="emoji").notes)


def test_attacks_without_a_control_make_a_page_that_says_so():
    bare = [replace(r, values={"success": r.values["success"]}) if r.attack != NONE else r for r in rows()]
    alone = [r for r in bare if r.eraser != NEVER_TAUGHT]
    unattacked = [r for r in bare if r.eraser != NEVER_TAUGHT or r.attack == NONE]
    for of in (alone, unattacked):
        board = leaderboard(of, subject="emoji")
        assert all(s.recovered is None and s.worst is None and not s.attacks for s in board.standings)
        assert not board.front and not board.compared and "No control was measured for relearning" in board.notes[0]
        assert not any("too few" in note for note in board.notes)
        for page in (board_to_html(board), board_to_markdown(board)):
            assert "No attack of this sweep has a control" in page and "good" in page


def test_an_attack_without_a_control_takes_nothing_from_the_others():
    bare = [
        replace(r, key=f"{r.key}/bare", attack="bare", values={"success": [8, 8]}) for r in rows() if r.attack != NONE
    ]
    alone = [r for r in rows() if r.eraser != NEVER_TAUGHT]
    before = leaderboard(alone, subject="emoji")
    after = leaderboard([*alone, *(r for r in bare if r.eraser != NEVER_TAUGHT)], subject="emoji")
    assert after.standings == before.standings and after.differences == before.differences
    assert after.compared == ("relearning",) and "No control was measured for bare" in after.notes[0]


def test_renderings_name_every_eraser_and_hold_its_numbers(board):
    page, text = board_to_html(board), board_to_markdown(board)
    for standing in board.standings:
        assert standing.name in page and standing.name in text
    assert text.startswith("# 3 erasers on emoji\n")
    assert "| **good** | 100% [" in text and "relearning" in text
    table = text[text.index("## Erased, by concept") :].splitlines()
    assert "| **good** | 100% | 100% | 100% |" in table and "| weak | 20% | 20% | 20% |" in table
    assert "Erased, by concept" in page
    assert page.startswith("<!doctype html>") and "Plotly.react" in page and "prefers-color-scheme: dark" in page
    assert ' src="http' not in page and "<link" not in page, "the page opens offline"
    assert json.loads(board_to_json(board))["front"] == ["good", "harsh"]
    drawn = json.loads(pareto(board).to_json() or "")["data"]
    named = sorted(n for t in drawn for n in t.get("text", ()) if n)
    assert named == sorted(s.name for s in board.standings if s.name != "weak"), "not on the front, so without its name"
    assert any("weak" in hover for t in drawn if t.get("hovertext") for hover in t["hovertext"])


def test_rows_without_a_value_show_a_dash_and_no_table_of_their_own(board):
    assert all(s.area is None and s.unnamed is None and s.criteria is None and not s.quality for s in board.standings)
    text, page = board_to_markdown(board), board_to_html(board)
    assert "Quality of pictures" not in text + page
    line = next(x for x in text.splitlines() if x.startswith("| **good**"))
    assert line.split(" | ")[8] == "–", "recovery area"


def test_an_area_is_the_mean_success_on_the_way_above_the_controls():
    assert area([(0, 0.0), (10, 1.0), (20, 1.0)]) == 0.75
    assert area([(0, 0.2), (1, 0.4), (3, 0.8)]) == pytest.approx((0.3 * 1 + 0.6 * 2) / 3)
    assert area([(0, 0.5)]) == 0.5
    curves = {"good": [[0, 0.0], [8, 0.5], [16, 0.5]], NEVER_TAUGHT: [[0, 0.0], [8, 0.0], [16, 0.25]]}
    made = [
        replace(r, values={**r.values, "curve": curves.get(r.eraser, [[0, 1.0], [16, 1.0]])}) if r.attack != NONE else r
        for r in rows()
    ]
    standing = {s.name: s for s in leaderboard(made, subject="emoji").standings}
    good, weak, never = (standing[n].area for n in ("good", "weak", NEVER_TAUGHT))
    assert good is not None and weak is not None and never is not None
    assert good.value == pytest.approx(0.375 - 0.0625) and good.low < good.value < good.high
    assert weak.value == pytest.approx(1 - 0.0625) and (never.value, never.low, never.high) == (0, 0, 0)
    alone = {s.name: s for s in leaderboard([r for r in made if r.eraser != NEVER_TAUGHT], subject="emoji").standings}
    assert alone["good"].area is not None and alone["good"].area.value == pytest.approx(0.375 - 1 / 8), (
        "its own control"
    )


def test_quality_is_that_of_the_rows_with_its_controls_and_old_rows_keep_their_dash():
    new = {
        "unnamed": [4, 40], "unnamed before": [1, 40], "clip kept": 0.5, "clip kept before": 0.6, "fid kept": 3.0,
        "fid control": 2.0, "erase_eval": {"m1": 0.8, "m2": 0.4, "m3": 0.9, "m4": 1.0, "harmonic": 0.5},
    }  # fmt: skip
    made = [replace(r, values={**r.values, **new}) if r.eraser == "good" and r.attack == NONE else r for r in rows()]
    board = leaderboard(made, subject="emoji")
    good = next(s for s in board.standings if s.name == "good")
    assert good.unnamed is not None and (good.unnamed.value, good.unnamed.control) == pytest.approx((0.1, 0.025))
    assert good.unnamed.low < 0.1 < good.unnamed.high and good.unnamed.n == 9 * 40
    assert good.criteria is not None and (good.criteria.value, good.quality["m2"]) == pytest.approx((0.5, 0.4))
    text, page = board_to_markdown(board), board_to_html(board)
    lines = [x for x in text[text.index("## Quality") :].splitlines() if x.startswith("| ")]
    assert "(2%) | 0.50 (0.60) | – | 3.0 (2.0) | – | 0.80 | 0.40 | 0.90 | 1.00 | 50% [" in next(
        x for x in lines if x.startswith("| good")
    )
    assert next(x for x in lines if x.startswith("| weak")).count("–") == 10
    assert "Quality of pictures" in page and "EraseEval" in page
    assert json.loads(board_to_json(board))["standings"][0]["quality"]["clip kept"] == pytest.approx(0.5)


def test_sign_flips_are_exact_for_few_pairs_and_close_for_many():
    assert sign_flip([1.0] * 5) == pytest.approx(2 / 32)
    assert sign_flip([1.0, -1.0]) == 1.0 and sign_flip([]) == 1.0 and sign_flip([0.0, 0.0]) == 1.0
    x = torch.randn(16, generator=torch.Generator().manual_seed(0)) + 0.4
    exact = sign_flip(x.tolist())
    assert sign_flip([*x.tolist(), 0.0], seed=1) == pytest.approx(exact, abs=0.01), (
        "a pair without difference says nothing"
    )


def test_a_sign_flip_test_keeps_its_level():
    generator = torch.Generator().manual_seed(0)
    ps = torch.tensor([sign_flip(torch.randn(8, generator=generator).tolist()) for _ in range(400)])
    assert float((ps <= 0.05).double().mean()) < 0.085


def test_holm_is_monotone_and_never_under_the_raw_p():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == [] and holm([0.9, 0.9]) == [1.0, 1.0]
