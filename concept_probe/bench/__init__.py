"""Sweeps that compare erasers on one subject: erasers x concepts x attacks x seeds, resumable, and a leaderboard."""

from __future__ import annotations

from concept_probe.bench.board.leaderboard import leaderboard
from concept_probe.bench.calibration.roc import calibration, residuals
from concept_probe.bench.sweep.estimate import SweepEstimate, estimate_sweep
from concept_probe.bench.sweep.grid import (
    NEVER_TAUGHT,
    NONE,
    UNTOUCHED,
    AttackSetting,
    Cell,
    Grid,
    MethodSetting,
    SweepSettings,
)
from concept_probe.bench.sweep.methods import PREPARATIONS, FitContext, method_settings
from concept_probe.bench.sweep.ray import NoRay, over_ray
from concept_probe.bench.sweep.store import RowStore, SweepRow
from concept_probe.bench.sweep.sweep import Sweep
from concept_probe.bench.sweep.workers import SweepOrder, helpers, work

__all__ = [
    "NEVER_TAUGHT",
    "NONE",
    "PREPARATIONS",
    "UNTOUCHED",
    "AttackSetting",
    "Cell",
    "FitContext",
    "Grid",
    "MethodSetting",
    "NoRay",
    "RowStore",
    "Sweep",
    "SweepEstimate",
    "SweepOrder",
    "SweepRow",
    "SweepSettings",
    "calibration",
    "estimate_sweep",
    "helpers",
    "leaderboard",
    "method_settings",
    "over_ray",
    "residuals",
    "work",
]
