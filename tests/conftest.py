"""Every test is offline and checks stated shapes; workers that run beside each other share the cores."""

from __future__ import annotations

import gc
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):  # before torch reads it
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))

from tests.shapes import check_shapes

check_shapes()


def pytest_collection():
    """Ten thousand tests are made at once, none of which can go: looking for garbage among them takes a third of the time."""
    gc.disable()


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


def pytest_unconfigure():
    """Compiled libraries count what is left of theirs at the end."""
    gc.unfreeze()
