"""A sweep measures every cell once, keeps what it has, and tells present from absent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from concept_probe.bench import NEVER_TAUGHT, UNTOUCHED, AttackSetting, Grid, MethodSetting
from concept_probe.bench.sweep import sweep as sweeps
from concept_probe.bench.sweep.fits import Fits
from concept_probe.erasers import AblateVectors, Blocklist, Uce
from tests.auditing.known import Known, concept
from tests.bench.cases import ATTACK_SETTINGS, SETTINGS, grid, sweep


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    made = sweep(folder, grid(twin=True))
    return folder, list(made.run())


def value(rows, eraser: str, attack: str = "none"):
    (row,) = [r for r in rows if r.eraser == eraser and r.attack == attack]
    assert row.status == "done", row.error
    return row.values


@pytest.mark.slow
def test_every_cell_has_one_row(finished):
    _, rows = finished
    assert len(rows) == 4 * 2 and len({r.key for r in rows}) == 8


@pytest.mark.slow
def test_the_untouched_subject_is_before_and_after_alike_and_moved_no_pixel(finished):
    values = value(finished[1], UNTOUCHED)
    assert values["before"] == values["after"]
    assert values["after"]["target"] == [4, 4]
    assert values["pixels kept"] == 0.0 and values["pixels target"] == 0.0


@pytest.mark.slow
def test_the_never_taught_twin_shows_none_of_it(finished):
    values = value(finished[1], NEVER_TAUGHT)
    assert values["after"]["target"] == [0, 4] and values["before"]["target"] == [4, 4]
    assert value(finished[1], NEVER_TAUGHT, "paraphrases")["success"][0] == 0


@pytest.mark.slow
def test_a_blocklist_hides_the_name_and_nothing_else(finished):
    values = value(finished[1], "blocklist")
    assert values["after"]["target"][0] == 0
    assert values["after"]["neighbours"] == values["before"]["neighbours"]
    assert value(finished[1], "blocklist", "paraphrases")["success"][0] > 0
    assert values["fit"]["numbers"] == 0 and values["fit"]["change"] == 0.0


def test_an_edit_has_a_size(finished):
    fit = value(finished[1], "uce")["fit"]
    assert fit["numbers"] > 0 and fit["change"] > 0 and fit["seconds"] > 0


@pytest.mark.slow
def test_a_finished_sweep_measures_nothing_again(finished):
    folder, rows = finished
    again = sweep(folder, grid(twin=True))
    assert list(again.run()) == []
    assert isinstance(again.subject, Known) and again.subject.pictures == 0
    assert again.store.rows() == {r.key: r for r in rows}


@pytest.mark.slow
def test_a_resumed_sweep_does_not_fit_again(finished, monkeypatch):
    folder, _ = finished
    monkeypatch.setattr(Uce, "__call__", lambda *_: pytest.fail("fitted again"))
    more = list(sweep(folder, grid(seeds=(0, 1), twin=True)).run())
    assert {r.seed for r in more} == {1} and all(r.status == "done" for r in more), [r.error for r in more]


def test_other_settings_are_other_cells(finished):
    folder, rows = finished
    other = grid(twin=True)
    other = replace(other, settings=replace(SETTINGS, sampling=replace(SETTINGS.sampling, steps=3)))
    assert not sweep(folder, other).keys().keys() & {r.key for r in rows}


@pytest.mark.slow
def test_a_failed_cell_is_a_row_and_is_measured_again_on_request(tmp_path):
    broken = grid(methods=(MethodSetting("ablate_vectors", AblateVectors()), MethodSetting("blocklist", Blocklist())))
    rows = list(sweep(tmp_path, broken).run())
    failed = [r for r in rows if r.status == "failed"]
    assert {r.eraser for r in failed} == {"ablate_vectors"} and len(failed) == 2
    assert all("needs concept vectors" in r.error for r in failed)
    assert list(sweep(tmp_path, broken).run()) == []
    assert [r.eraser for r in sweep(tmp_path, broken).run(retry=True)] == ["ablate_vectors"] * 2


@pytest.mark.slow
def test_an_interruption_leaves_whole_rows_and_the_rest_for_later(tmp_path, monkeypatch):
    made = sweep(tmp_path)
    several = made.run()
    first = [next(several), next(several)]

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweeps, "measure_attack", interrupted)
    monkeypatch.setattr(sweeps, "ask_and_judge", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(several)
    assert set(made.store.rows()) == {r.key for r in first}
    monkeypatch.undo()
    later = list(sweep(tmp_path).run())
    assert len(later) == len(made.keys()) - 2


@pytest.mark.slow
def test_a_cell_that_another_process_has_is_left_to_it(tmp_path, monkeypatch):
    made = sweep(tmp_path)
    taken = next(iter(made.keys()))
    claim = made.store.claim
    monkeypatch.setattr(made.store, "claim", lambda key, **how: claim(key, **how) if key != taken else _refused())
    assert taken not in {r.key for r in made.run()} and len(made.store.rows()) == len(made.keys()) - 1


def _refused():
    import contextlib

    return contextlib.nullcontext(False)


@pytest.mark.slow
def test_what_was_kept_for_other_options_is_not_taken(finished, monkeypatch):
    folder, _ = finished
    seen = []
    get = Fits.get
    monkeypatch.setattr(Fits, "get", lambda self, method, *rest: seen.append(method.name) or get(self, method, *rest))
    other = grid(methods=(MethodSetting("uce", Uce(beta=2.0)),))
    assert all(r.status == "done" for r in sweep(folder, other).run())
    assert seen == ["uce"] and len([p for p in (folder / "fits").iterdir() if p.name.startswith("uce")]) == 2


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: Grid((), (), (), (0,)), "needs a concept"),
        (lambda: Grid((concept(), concept()), (), ATTACK_SETTINGS), "there twice"),
        (lambda: AttackSetting("none", "paraphrases"), "can't be called"),
        (lambda: AttackSetting("a", "paraphrase"), "paraphrases"),
        (lambda: grid().method("ucee"), "uce"),
    ],
)
def test_what_is_refused_says_why(made, said):
    with pytest.raises((ValueError, LookupError), match=said):
        made()
