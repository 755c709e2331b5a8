"""Everything that decides a number is in the name of its row, and what decides none is not."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from concept_probe.auditing.arm import arm_of
from concept_probe.bench import MethodSetting, RowStore, Sweep
from concept_probe.bench.sweep import keys
from concept_probe.content import digest_of
from concept_probe.erasers import Blocklist, Uce
from concept_probe.erasers.erasure.intervention import Intervention
from concept_probe.evaluation.selection import Selection
from concept_probe.testing.concepts import tiny_concept
from concept_probe.types import Prompt, Sampling, Splits
from tests.auditing.known import Known, Reader, concept
from tests.bench.cases import SETTINGS, grid


@pytest.fixture(scope="module")
def subject():
    return Known(0, concept())


def names(subject, of=None, looks=None, saes=(), folder=Path("unused")):
    judge = looks or Reader()
    sweep = Sweep(of or grid(), subject, folder, RowStore(folder / "rows"), judges=lambda _: (judge, None), saes=saes)
    return list(sweep.keys())


def about(**changed):
    made = replace(concept(), **changed)
    return replace(grid(), concepts=(made,))


def relabelled(splits: Splits) -> Splits:
    return replace(splits, test=tuple(replace(p, label="sun") for p in splits.test))


MADE = concept()
OTHERS = {
    "label of a prompt": lambda: about(neighbours=relabelled(MADE.neighbours)),
    "subject of a prompt": lambda: about(
        target=replace(MADE.target, test=(replace(MADE.target.test[0], subject=None), *MADE.target.test[1:]))
    ),
    "case of a prompt": lambda: about(
        target=replace(MADE.target, test=(Prompt(MADE.target.test[0].text.title(), None, "cat"), *MADE.target.test[1:]))
    ),
    "border of two splits": lambda: about(
        target=Splits(MADE.target.fit[:-1], (MADE.target.fit[-1], *MADE.target.select), MADE.target.test)
    ),
    "example pictures": lambda: about(examples=cast(Any, MADE.examples) * 0.99),
    "option": lambda: replace(grid(), methods=(MethodSetting("blocklist", Blocklist()), MethodSetting("uce", Uce(beta=2.0)))),
    "what is asked of a choice": lambda: replace(
        grid(), methods=(MethodSetting("blocklist", Blocklist()), MethodSetting("uce", Uce(), choice=Selection(images=3)))
    ),
    "sampling": lambda: replace(grid(), settings=replace(SETTINGS, sampling=Sampling(steps=3))),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_what_decides_a_number_is_in_the_name(subject, what):
    before, after = names(subject), names(subject, OTHERS[what]())
    assert before[-2:] != after[-2:] and len(set(before)) == len(before)  # the cells of uce


@dataclass(frozen=True)
class Stricter(Reader):
    threshold: float = 0.9


def test_a_recogniser_is_known_by_what_it_is(subject):
    assert names(subject) == names(subject, looks=Reader())
    assert not set(names(subject)) & set(names(subject, looks=Stricter()))
    assert not set(names(subject, looks=Stricter())) & set(names(subject, looks=Stricter(threshold=0.8)))


def test_another_edition_of_a_measurement_is_another_row(subject, monkeypatch):
    before = names(subject)
    monkeypatch.setitem(keys.EDITIONS, "attack", keys.EDITIONS["attack"] + 1)
    after = names(subject)
    assert before[0::2] == after[0::2] and not set(before[1::2]) & set(after[1::2])


def test_a_subject_is_known_by_its_schedule_and_words_too(subject):
    before = names(subject)
    other = Known(0, concept())
    other.pipeline.scheduler = type(other.pipeline.scheduler).from_config(
        other.pipeline.scheduler.config, beta_start=0.002
    )
    assert not set(before) & set(names(other))


@pytest.mark.slow
def test_corrected_labels_are_measured_again(tmp_path):
    def run(of):
        judge = Reader()
        store = RowStore(tmp_path / "rows.jsonl")
        made = Sweep(of, Known(0, concept()), tmp_path, store, judges=lambda _: (judge, None))
        return list(made.run())

    small = replace(grid(methods=()), attacks=())
    wrong = replace(small, concepts=(replace(MADE, neighbours=relabelled(MADE.neighbours), unrelated=Splits()),))
    right = replace(small, concepts=(replace(MADE, unrelated=Splits()),))
    assert len(run(wrong)) == 1 and len(run(right)) == 1 and run(right) == []


def test_an_erasure_is_known_by_its_tensors_and_not_by_its_name(subject):
    def guard(name: str, by: float) -> Intervention:
        moved = torch.full((1,), by)
        return Intervention(name, "cat", {subject.sites("text_out")[0]: lambda x, moment: moved.expand_as(x)})

    states = [arm_of("after", subject, g).state for g in (guard("a", 0.1), guard("a", 0.1), guard("a", 0.2))]
    assert states[0] == states[1] != states[2]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.zeros(2000), torch.cat([torch.zeros(1999), torch.ones(1)])),  # print alike
        ({"a": 1}, {"a": True and 2}),
        (tiny_concept(), replace(tiny_concept(), name="c")),
        ((1, 2), (2, 1)),
        (lambda x, k=1: x, lambda x, k=2: x),
    ],
)
def test_digests_tell_things_apart(one, other):
    assert digest_of(one) == digest_of(one) != digest_of(other)


class Module(torch.nn.Module):
    """A recogniser that is a module, told apart by attributes that its `state_dict` doesn't hold."""

    def __init__(self, **own) -> None:
        super().__init__()
        self.register_buffer("scale", own.pop("scale", torch.ones(2)), persistent=False)
        vars(self).update(own)


@pytest.mark.parametrize(
    "other",
    [
        {"labels": ("dog", "cat")},
        {"labels": ("cat", "dog"), "least": [0.2]},
        {"labels": ("cat", "dog"), "_hidden": {"a": 1}},
        {"labels": ("cat", "dog"), "centre": torch.ones(3)},
        {"labels": ("cat", "dog"), "rule": lambda x: x > 0.5},
        {"labels": ("cat", "dog"), "scale": torch.ones(2) * 2},
    ],
)
def test_a_module_is_told_by_all_that_it_holds(other):
    assert digest_of(Module(labels=("cat", "dog"))) == digest_of(
        Module(labels=("cat", "dog"), made_by={"run": 2}).eval()
    )
    assert digest_of(Module(labels=("cat", "dog"))) != digest_of(Module(**other))


@pytest.mark.slow
def test_stored_rows_are_found_by_their_benchmark():
    """Rows of the leaderboard have the names that it asks for now."""
    import sys

    folder = Path(__file__).parents[2] / "benchmarks"
    sys.path.insert(0, str(folder))
    try:
        import emoji_erasure
        from sweeping import FOLDER, named
    finally:
        sys.path.remove(str(folder))
    from argparse import Namespace

    rows = FOLDER / "emoji_erasure.jsonl"
    found = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    wanted = {r["key"] for r in found if r["eraser"] == "uce" and r["concept"] == "camel"}
    options = Namespace(concepts=["camel"], erasers=["uce"], seeds=[5], count=None, work=rows, rows=rows)
    (order,) = emoji_erasure.orders(options)
    assert named and wanted and wanted <= order.sweep().keys().keys()
