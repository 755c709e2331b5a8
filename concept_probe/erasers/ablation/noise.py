"""Noise in place of columns: the one of `find.removals`, under the name by which erasers take it."""

from concept_probe.find.removals.known import column_noise

__all__ = ["column_noise"]
