"""What a sweep will take is said before it starts, and what its choosers cost can be chosen."""

from __future__ import annotations

import pytest

from concept_probe.bench import PREPARATIONS, FitContext, MethodSetting, estimate_sweep, method_settings
from concept_probe.bench.sweep import methods
from concept_probe.erasers import Uce
from concept_probe.erasers.select.choose import CHOICE
from concept_probe.evaluation.selection import Selection
from tests.auditing.known import Known, Reader, concept
from tests.bench.cases import grid, sweep


@pytest.mark.slow
def test_what_is_missing_is_counted(tmp_path):
    asked = sweep(tmp_path, grid(seeds=(0, 1)))
    found = estimate_sweep(asked)
    # untouched, blocklist and uce, each with and without the one attack, for two seeds
    assert (found.cells, found.fits) == (12, 2)
    assert found.answers == 6 * 18 + 6 * 2 * 12 and found.seconds > 0
    assert str(found).startswith("12 cells to measure: at most 252 pictures, about ")
    next(iter(asked.run()))
    assert estimate_sweep(asked).cells == 11


def test_what_choosers_are_asked_is_an_option(monkeypatch):
    few = Selection(images=3)
    made = {m.name: m.choice for m in method_settings(("ablate_features", "uce"), few)}
    assert made == {"ablate_features": few, "uce": None}
    assert [m.eraser for m in method_settings(("uce (published)",), few)] == [Uce.published()]
    seen = []

    def chooser(*args, selection, **more):
        seen.append(selection)
        raise InterruptedError

    for name in ("choose", "choose_features", "choose_vectors"):
        monkeypatch.setattr(methods, name, chooser)
    monkeypatch.setattr(methods, "over_text", lambda saes: saes)
    context = FitContext(Reader(), saes=(object(),))  # pyright: ignore[reportArgumentType]
    subject = Known(0, concept())
    chosen = [name for name in PREPARATIONS if name.startswith("chosen")]
    for prepare in chosen:
        for choice in (few, None):
            setting = MethodSetting("uce", Uce(), prepare, choice=choice)
            with pytest.raises(InterruptedError):
                PREPARATIONS[prepare](setting, subject, concept(), context)
    assert seen == [few, CHOICE] * len(chosen)
