"""Taps on a subject's tensors, and the store that captured rows go to."""

from concept_probe.capture.activations import Activations, Block
from concept_probe.capture.run import capture
from concept_probe.capture.shard import DamagedShard
from concept_probe.capture.tap import tap

__all__ = ["Activations", "Block", "DamagedShard", "capture", "tap"]
