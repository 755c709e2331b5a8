"""What training an autoencoder will take, before it is started."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

import torch

from concept_probe.arguments import Count, checked_argument
from concept_probe.learn.kernels.torch_ops import GATHERED
from concept_probe.learn.train.topk_search import BLOCK_ROWS, CPU_BLOCK_BYTES

FLOAT = 4
"""Bytes of a number; weights, gradients and moments are float32 whatever the rows are."""


@dataclass(frozen=True)
class TrainingEstimate:
    """Memory by part, in bytes, and time."""

    weights: int
    """Encoder and decoder (f, d), both biases, and how long each feature has been idle."""
    gradients: int
    moments: int
    """Adam's two, per parameter."""
    copies: int
    """The encoder in bfloat16, with which candidates are picked."""
    block: int
    """The pre-activations that are held at a time."""
    batch: int
    """Rows, errors and gradients of one batch, its codes, and the decoder rows gathered for them."""
    rows: int
    """What the source holds: the window of a store, or the buffer of a live draw."""
    seconds: float | None
    """None where no step was timed."""

    @property
    def bytes(self) -> int:
        """All parts together."""
        return self.weights + self.gradients + self.moments + self.copies + self.block + self.batch + self.rows

    def __str__(self) -> str:
        names = ("weights", "gradients", "moments", "copies", "block", "batch", "rows")
        parts = ", ".join(f"{name} {getattr(self, name) / 1e9:.2f}" for name in names)
        time = "" if self.seconds is None else f"; {self.seconds:.0f} s"
        return f"about {self.bytes / 1e9:.2f} GB of memory ({parts}){time}"

    def check_memory(self, device: torch.device) -> None:
        """Raises OSError (ENOMEM) if `device` has less memory free than is needed; silent where that is not known."""
        free = free_memory(device)
        if free is not None and self.bytes > free:
            raise OSError(
                errno.ENOMEM,
                f"this training needs {self} and {device} has {free / 1e9:.2f} GB free; nothing was written; train "
                "fewer features (expansion=, --expansion) or smaller batches (options.batch, --batch)",
            )


def estimate_training(
    d: int,
    features: int,
    k: int,
    batch: int,
    samples: int,
    *,
    dtype: torch.dtype = torch.float32,
    rows: int = 0,
    step_seconds: float | None = None,
) -> TrainingEstimate:
    """Memory and time to train `features` features over width `d`, k of which fire per row.

    >>> estimate_training(768, 16 * 768, k=32, batch=4096, samples=10**8, rows=65536).check_memory(device)

    `dtype` is that of the `rows` rows which the source holds. Pass `step_seconds`, the time of one step, to learn how
    long `samples` rows take.
    """
    for name, value in (("d", d), ("features", features), ("k", k), ("batch", batch), ("samples", samples)):
        checked_argument(value, Count, name)
    parameters = FLOAT * (2 * features * d + features + d)
    picked = k + max(8, k // 2)
    one_batch = FLOAT * batch * d * 6
    codes = batch * picked * 4 * FLOAT + batch * k * 3 * 8
    return TrainingEstimate(
        weights=parameters + 8 * features,
        gradients=parameters,
        moments=2 * parameters,
        copies=2 * features * d,
        block=max(CPU_BLOCK_BYTES, FLOAT * BLOCK_ROWS * features),
        batch=one_batch + codes + FLOAT * min(GATHERED, batch * picked * d),
        rows=rows * d * dtype.itemsize,
        seconds=None if step_seconds is None else samples // batch * step_seconds,
    )


def free_memory(device: torch.device) -> int | None:
    """Bytes that `device` can still give: of a CUDA device its own, else of the system; None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    table = Path("/proc/meminfo")
    if not table.is_file():
        return None
    lines = dict(line.split(":", 1) for line in table.read_text().splitlines() if ":" in line)
    return int(lines["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in lines else None
