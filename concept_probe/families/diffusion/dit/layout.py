"""How pipelines of flow models lay out the noise of their steps: which sigmas they ask for, and how far they shift them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def even_sigmas(steps: int) -> tuple[float, ...]:
    """1 to 1 / steps, in equal strides, before any shift."""
    last = 1 / steps
    return (1.0,) if steps == 1 else tuple(1.0 + (last - 1.0) * i / (steps - 1) for i in range(steps))


def shift_by_size(config: Mapping[str, Any], patches: int, most: float = 1.15) -> float:
    """μ, a linear function of the number of patches (arXiv 2403.03206, section 5.3.2, as FLUX lays it out).

    `most` is the shift of the largest picture where the scheduler's configuration does not say.
    """
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", most)
    return low + (patches - few) * (high - low) / (many - few)


def shift_by_size_and_steps(patches: int, steps: int) -> float:
    """μ as FLUX.2 lays it out: linear in the number of patches, and between a line for 10 steps and one for 200; from 4300
    patches on the latter's alone."""
    many = 0.00016927 * patches + 0.45666666
    if patches > 4300:
        return many
    few = 8.73809524e-05 * patches + 1.89833333
    slope = (many - few) / 190
    return slope * steps + (many - 200 * slope)
