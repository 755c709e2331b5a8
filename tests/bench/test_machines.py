"""A sweep on Ray: the same rows as in one process, and a clear word where Ray is missing."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from concept_probe.bench import Grid, MethodSetting, NoRay, RowStore, SweepOrder, over_ray
from concept_probe.bench.sweep import ray as machines
from concept_probe.bench.sweep.ray import LIVES, Measurer, groups
from concept_probe.erasers import Blocklist
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models import save_model
from concept_probe.testing.models.diffusion import tiny_sd
from tests.bench.cases import ATTACK_SETTINGS, SETTINGS, grid


@pytest.fixture
def order(tmp_path) -> SweepOrder:
    """Two erasers that anybody can load: a saved tiny model, judged by the recogniser of the embedded ones."""
    asked = Grid((tiny_concept(),), (MethodSetting("blocklist", Blocklist()),), ATTACK_SETTINGS, (0,), SETTINGS)
    return SweepOrder(
        asked,
        str(save_model(tiny_sd(), tmp_path / "model")),
        None,
        tmp_path,
        tmp_path / "rows.jsonl",
        threads=1,
        recogniser="tests.bench.cases:SEES_ALL",
    )


def without_times(row):
    kept = {k: v for k, v in row.values.items() if k not in ("peak", "fit", "spent")}
    return replace(row, seconds=0.0, values=kept)


def test_without_ray_the_message_says_what_to_install(order, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(NoRay, match=r"pip install 'concept-probe\[ray\]'"):
        next(over_ray(order))
    assert not order.rows.exists()


def test_cells_that_share_a_fit_come_together():
    cells = {f"{c.method}/{c.attack_name}/{c.seed}": c for c in grid(seeds=(0, 1)).cells()}
    made = [list(g) for g in groups(cells)]
    assert [len(g) for g in made] == [2] * 6 and made[0] == ["untouched/none/0", "untouched/paraphrases/0"]
    assert [k for g in made for k in g] == list(cells)


@pytest.mark.slow
def test_a_worker_measures_what_a_sweep_does_and_writes_nothing(order):
    worker, sweep = Measurer(order), order.sweep()
    key, cell = list(sweep.keys().items())[2]
    row = worker.measure(key)
    assert row.status == "done", row.error
    assert without_times(row) == without_times(sweep.measured(key, cell)) and not order.rows.exists()
    with pytest.raises(KeyError, match="loads other weights"):
        worker.measure("0" * 20)


@pytest.mark.parametrize("began", [True, False])
def test_a_worker_that_died_is_replaced_and_one_that_could_not_begin_ends_the_sweep(order, began):
    """Ray tells of both with one error, and marks the second kind."""

    class RayActorError(Exception):
        actor_init_failed = not began

    def get(ready):
        raise RayActorError("the actor died")

    ray = SimpleNamespace(get=get, exceptions=SimpleNamespace(RayActorError=RayActorError))
    (key, cell), died = next(iter(order.sweep().keys().items())), {}
    died[key] = 0
    if not began:
        with pytest.raises(RayActorError):
            machines._row(ray, None, key, cell, died)
        return
    assert machines._row(ray, None, key, cell, died) is None
    row = machines._row(ray, None, key, cell, died)
    assert row is not None and row.status == "failed" and row.error.startswith("worker lost: 2 workers")


@pytest.mark.slow
def test_a_sweep_on_ray_has_the_rows_of_one_in_a_process_and_goes_on(order, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)]))
    alone = replace(order, rows=tmp_path / "alone.jsonl")
    expected = {r.key: without_times(r) for r in alone.sweep().run()}
    first = next(iter(order.sweep().run()))  # one cell is there already
    made = list(over_ray(order, workers=2))
    assert len(made) == len(expected) - 1 and first.key not in {r.key for r in made}
    assert {k: without_times(r) for k, r in RowStore(order.rows).rows().items()} == expected
    assert list(over_ray(order, workers=2)) == []


@pytest.mark.slow
def test_a_cell_that_ends_its_worker_twice_is_a_failed_row_and_the_rest_goes_on(order, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)]))
    fatal = next(iter(order.sweep().keys()))

    class Mortal(Measurer):
        def measure(self, key):
            if key == fatal:
                os._exit(1)
            return super().measure(key)

    monkeypatch.setattr(machines, "Measurer", Mortal)
    rows = {r.key: r for r in over_ray(order, workers=1)}
    assert len(rows) == len(order.sweep().keys())
    assert rows[fatal].status == "failed" and rows[fatal].error.startswith(f"worker lost: {LIVES} workers")
    assert all(r.status == "done" for k, r in rows.items() if k != fatal)
