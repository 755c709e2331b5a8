"""How many threads torch computes with: one setting for a whole process."""

from __future__ import annotations


def use_threads(count: int | None) -> int | None:
    """Compute with `count` threads of torch in this process from now on; None leaves it as it is. Returns `count`."""
    if count is not None:
        import torch  # the command line reads its options before it needs torch

        torch.set_num_threads(count)
    return count
