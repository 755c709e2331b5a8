"""Taps on a subject's tensors, and the store that captured rows go to."""

from concept_probe.activations.capture import capture
from concept_probe.activations.estimate import CaptureEstimate, estimate_capture
from concept_probe.activations.live import Live
from concept_probe.activations.prefetch import Prefetched, prefetch
from concept_probe.activations.shard import DamagedShard
from concept_probe.activations.store import Activations, Block
from concept_probe.activations.tap import tap

__all__ = [
    "Activations",
    "Block",
    "CaptureEstimate",
    "DamagedShard",
    "Live",
    "Prefetched",
    "capture",
    "estimate_capture",
    "prefetch",
    "tap",
]
