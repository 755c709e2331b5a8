"""What made an erasure: method, options, subject, what it worked on, and which prompts it may have seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from numbers import Real
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from concept_probe.storage import tensors_sha256
from concept_probe.types import KINDS, Concept, Erasure, Subspace, fingerprint

if TYPE_CHECKING:
    from concept_probe.families import Subject

SEEN = "prompts_seen"
"""Key of `made_by` under which fingerprints of prompts stand."""
WORKED_ON = "found"
"""Key of `made_by` under which the places and hashes of subspaces stand."""


def provenance(
    eraser: Any,
    subject: Subject,
    concepts: Sequence[Concept],
    found: Sequence[Subspace],
    measured: Mapping[str, Any],
) -> dict[str, Any]:
    """What `eraser` (a dataclass of options) made an erasure by: from the concepts' fit and select prompts, and `found`.

    `measured` is what came out in the making. Options among it, under `options`, are those that had been left open,
    as they were settled.
    """
    options = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(eraser).items()}
    prompts = (p for c in concepts for kind in KINDS for split in ("fit", "select") for p in c.prompts(kind, split))
    out = {
        "method": eraser.name,
        "options": options | measured.get("options", {}),
        "subject": subject.name,
        SEEN: sorted({fingerprint(p.text) for p in prompts}),
    }
    if found:
        out[WORKED_ON] = [f"{space.site} rank {space.rank} {content_hash(space)}" for space in found]
    return out | {key: value for key, value in measured.items() if key != "options"}


def prompts_seen(made_by: Mapping[str, Any]) -> frozenset[str]:
    """Fingerprints of the prompts that an erasure, or any that it was put together from, may have been made from."""
    parts = (prompts_seen(value) for value in made_by.values() if isinstance(value, Mapping))
    return frozenset(made_by.get(SEEN, ())).union(*parts)


def content_hash(space: Subspace) -> str:
    """12 hexadecimal digits of a SHA-256 over the basis, what goes with it, and the weights of its autoencoder."""
    tensors: dict[str, Tensor | None] = {"basis": space.basis, "mean": space.mean, "dual": space.dual}
    if isinstance(space.codec, nn.Module):
        tensors |= {f"codec.{name}": x for name, x in space.codec.state_dict().items()}
    return tensors_sha256((name, x) for name, x in tensors.items() if x is not None)[:12]


def condensed(made_by: Mapping[str, Any]) -> dict[str, Any]:
    """`made_by` for people: how many prompts were seen, instead of their fingerprints."""
    return {
        key: len(value) if key == SEEN else condensed(value) if isinstance(value, Mapping) else value
        for key, value in made_by.items()
    }


def shown_name(erasure: Erasure) -> str:
    """The name of an erasure as people read it: with its strength, where that is not 1. Keys and files hold `name`.

    >>> shown_name(uce.scaled(20))
    'uce × 20'
    """
    strength = getattr(erasure, "strength", None)
    if strength is not None:
        return _with_strength(erasure.name, strength)
    strengths, names = _strengths(erasure.made_by), erasure.name.split("+")
    if len(names) == len(strengths) and any(s != 1 for s in strengths):
        return " + ".join(_with_strength(name, s) for name, s in zip(names, strengths, strict=True))
    return _with_strength(erasure.name, strengths[0]) if len(set(strengths)) == 1 else erasure.name


def _strengths(made_by: Mapping[str, Any], factor: float = 1.0) -> list[float]:
    """How strong each edit is that one was put together from: its own option, times all that it was scaled by."""
    factor *= made_by.get("scaled", 1.0)
    parts = made_by.get("parts", {"first": made_by.get("first"), "second": made_by.get("second")})
    if isinstance(parts, Mapping) and parts and all(isinstance(part, Mapping) for part in parts.values()):
        return [strength for part in parts.values() for strength in _strengths(part, factor)]
    option = made_by.get("options", {}).get("strength", 1.0)
    return [factor * option if isinstance(option, int | float) else factor]


def _with_strength(name: str, strength: float) -> str:
    shown = f"{strength:.4g}"
    return name if shown == "1" else f"{name} × {shown}"


def check_strength(name: str, strength: float) -> None:
    """Raise ValueError for a factor on an erasure that is no finite number, TypeError for what is no number."""
    if isinstance(strength, bool) or not isinstance(strength, Real):
        raise TypeError(f"{name}: a strength of {strength!r} was asked for; it is a finite number")
    if not math.isfinite(strength):
        raise ValueError(f"{name}: a strength of {strength} was asked for; it is a finite number")
