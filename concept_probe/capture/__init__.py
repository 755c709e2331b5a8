"""Taps on a subject's tensors, and the store that captured rows go to."""

from concept_probe.capture.activations import Activations, Block
from concept_probe.capture.estimate import CaptureEstimate, estimate_capture
from concept_probe.capture.live import Live
from concept_probe.capture.prefetch import Prefetched, prefetch
from concept_probe.capture.run import capture
from concept_probe.capture.shard import DamagedShard
from concept_probe.capture.tap import tap

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
