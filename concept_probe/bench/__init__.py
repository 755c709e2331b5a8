"""Sweeps that compare erasers on one subject: erasers x concepts x attacks x seeds, resumable, and a leaderboard."""

from __future__ import annotations

from concept_probe.bench.board import leaderboard
from concept_probe.bench.entrants import OURS, PREPARATIONS, Bench, entrants
from concept_probe.bench.grid import NEVER_TAUGHT, NONE, UNTOUCHED, Assault, Cell, Entrant, Grid, Settings
from concept_probe.bench.machines import NoRay, over_ray
from concept_probe.bench.roc import calibration, residuals
from concept_probe.bench.store import Row, Store
from concept_probe.bench.sweep import Sweep
from concept_probe.bench.workers import Order, helpers, work

__all__ = [
    "NEVER_TAUGHT",
    "NONE",
    "OURS",
    "PREPARATIONS",
    "UNTOUCHED",
    "Assault",
    "Bench",
    "Cell",
    "Entrant",
    "Grid",
    "NoRay",
    "Order",
    "Row",
    "Settings",
    "Store",
    "Sweep",
    "calibration",
    "entrants",
    "helpers",
    "leaderboard",
    "over_ray",
    "residuals",
    "work",
]
