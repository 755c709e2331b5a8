"""What an edit does to one parameter: a low-rank term, a few columns, a shift of a bias, or several of these."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


def _wide(x: Tensor) -> Tensor:
    """At least float32: the sum is rounded once, when it is put into the parameter's dtype."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


@dataclass(frozen=True)
class LowRank:
    """W + u vᵀ; `u` is (d_out, r), `v` is (d_in, r)."""

    u: Tensor
    v: Tensor

    def is_empty(self) -> bool:
        return self.u.shape[1] == 0

    def apply(self, base: Tensor) -> Tensor:
        wide = _wide(base)
        u, v = self.u.to(wide), self.v.to(wide)
        return (wide + (u @ v.mT).reshape(base.shape)).to(base.dtype)

    def scaled(self, factor: float) -> LowRank:
        return replace(self, u=self.u * factor)

    def factors(self) -> tuple[Tensor, Tensor]:
        """(d_out, r) and (d_in, r) with change of the weight = first @ second.T."""
        return self.u, self.v

    def tensors(self) -> dict[str, Tensor]:
        return {"u": self.u, "v": self.v}

    def describe(self) -> dict[str, Any]:
        return {"kind": "low_rank", "rank": self.u.shape[1]}


@dataclass(frozen=True)
class Columns:
    """Add `values` (d_out, m) to the columns `indices` (m,) of a weight (d_out, d_in)."""

    indices: Tensor
    values: Tensor
    width: int
    """d_in"""

    def is_empty(self) -> bool:
        return self.indices.numel() == 0

    def apply(self, base: Tensor) -> Tensor:
        edited = base.clone()
        indices = self.indices.to(base.device)
        wide = _wide(base[:, indices])
        edited[:, indices] = (wide + self.values.to(wide)).to(base.dtype)
        return edited

    def scaled(self, factor: float) -> Columns:
        return replace(self, values=self.values * factor)

    def factors(self) -> tuple[Tensor, Tensor]:
        picks = torch.zeros(self.width, len(self.indices), dtype=self.values.dtype, device=self.values.device)
        picks[self.indices.to(picks.device), torch.arange(len(self.indices), device=picks.device)] = 1
        return self.values, picks

    def tensors(self) -> dict[str, Tensor]:
        return {"indices": self.indices, "values": self.values}

    def describe(self) -> dict[str, Any]:
        return {"kind": "columns", "columns": len(self.indices), "width": self.width}


@dataclass(frozen=True)
class Shift:
    """Add `values` (d,) to a bias."""

    values: Tensor

    def is_empty(self) -> bool:
        return self.values.numel() == 0

    def apply(self, base: Tensor) -> Tensor:
        wide = _wide(base)
        return (wide + self.values.to(wide)).to(base.dtype)

    def scaled(self, factor: float) -> Shift:
        return replace(self, values=self.values * factor)

    def factors(self) -> tuple[Tensor, Tensor]:
        raise ValueError("a shift of a bias has no low-rank factors")

    def tensors(self) -> dict[str, Tensor]:
        return {"values": self.values}

    def describe(self) -> dict[str, Any]:
        return {"kind": "shift", "norm": float(torch.linalg.vector_norm(self.values))}


@dataclass(frozen=True)
class Sum:
    """Several deltas of one parameter, in the order in which they were made."""

    parts: tuple[Delta, ...]

    def is_empty(self) -> bool:
        return all(part.is_empty() for part in self.parts)

    def apply(self, base: Tensor) -> Tensor:
        for part in self.parts:
            base = base if part.is_empty() else part.apply(base)
        return base

    def scaled(self, factor: float) -> Sum:
        return Sum(tuple(part.scaled(factor) for part in self.parts))

    def factors(self) -> tuple[Tensor, Tensor]:
        pairs = [part.factors() for part in self.parts]
        return torch.cat([u for u, _ in pairs], dim=1), torch.cat([v for _, v in pairs], dim=1)

    def tensors(self) -> dict[str, Tensor]:
        return {f"{i}.{name}": x for i, part in enumerate(self.parts) for name, x in part.tensors().items()}

    def describe(self) -> dict[str, Any]:
        return {"kind": "sum", "parts": [part.describe() for part in self.parts]}


Delta = LowRank | Columns | Shift | Sum


def rebuild(kind: dict[str, Any], tensors: dict[str, Tensor]) -> Delta:
    """The delta whose `describe()` and `tensors()` these are."""
    match kind["kind"]:
        case "low_rank":
            return LowRank(tensors["u"], tensors["v"])
        case "columns":
            return Columns(tensors["indices"], tensors["values"], kind["width"])
        case "shift":
            return Shift(tensors["values"])
        case "sum":
            own = [
                {name.partition(".")[2]: x for name, x in tensors.items() if name.partition(".")[0] == str(i)}
                for i in range(len(kind["parts"]))
            ]
            return Sum(tuple(rebuild(part, mine) for part, mine in zip(kind["parts"], own, strict=True)))
        case other:
            raise ValueError(f"a delta of kind {other!r} is not known: low_rank, columns, shift, sum are")
