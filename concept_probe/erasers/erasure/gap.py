"""How well what an erasure was solved for was met: read off what it says of itself, whatever the method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

GAPS = {"gap_left": 0.9, "residual": 1e-4}
"""Keys of `made_by` that say what a solve left over, and the bound above which that is said: the share of the way to
their destinations that edited tokens were not moved, and |K M - R| / |R| of the linear system."""
OF_TEXTS = (0.25, 0.6)
"""Edits of language models: the share of the way left above which it is said, and above which it is an error, as every
later token reads what such an edit writes."""
_SAID = {
    "gap_left": "of the way to their destinations is left to the tokens that were to be moved",
    "residual": "of the right-hand side is left over by the solve",
}


def gaps_left(made_by: Mapping[str, Any]) -> dict[str, float]:
    """The largest number under each of `GAPS`, in whatever lists and mappings it stands."""
    out: dict[str, float] = {}
    for name, value in _found(made_by):
        out[name] = max(value, out.get(name, value))
    return out


def wide_gaps(made_by: Mapping[str, Any]) -> list[str]:
    """Those above their bound, in words."""
    return [f"{value:.2g} {_SAID[name]}" for name, value in gaps_left(made_by).items() if not value <= GAPS[name]]


def _found(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _found(inner, key if key in GAPS else name)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for inner in value:
            yield from _found(inner, name)
    elif name and isinstance(value, float):
        yield name, value
