"""What an edit does to one parameter: a low-rank term, a few columns, a shift of a bias, or several of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor


def _wide(x: Tensor) -> Tensor:
    """At least float32: the sum is rounded once, when it is put into the parameter's dtype."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _check_numbers(what: str, **tensors: Tensor) -> None:
    """Raise ValueError for what is no real finite number."""
    for name, x in tensors.items():
        if not x.is_floating_point():
            raise ValueError(f"{what}: {name} is of {x.dtype}; a change of weights is made of floating-point numbers")
        if not bool(torch.isfinite(x).all()):
            raise ValueError(
                f"{what}: {name} {tuple(x.shape)} holds {int((~torch.isfinite(x)).sum())} values that are not finite"
            )


def _check_shape(what: str, found: Sequence[int], base: Tensor, wanted: Sequence[int]) -> None:
    if tuple(found) != tuple(wanted):
        raise ValueError(
            f"{what}: a change of {tuple(found)} does not fit a parameter of {tuple(base.shape)}, which needs {tuple(wanted)}"
        )


def _transposed(stored: str) -> dict[str, Any]:
    """What a description says of a matrix that is held transposed; nothing of others."""
    return {} if stored == "out_in" else {"stored": stored}


@dataclass(frozen=True)
class LowRank:
    """W + u vᵀ; `u` is (d_out, r), `v` is (d_in, r)."""

    u: Tensor
    v: Tensor
    stored: Literal["out_in", "in_out"] = "out_in"
    """How the parameter holds the matrix: as it is, or transposed."""

    def __post_init__(self) -> None:
        _check_numbers("low-rank change", u=self.u, v=self.v)
        if self.u.ndim != 2 or self.v.ndim != 2 or self.u.shape[1] != self.v.shape[1]:
            raise ValueError(
                f"low-rank change: u is {tuple(self.u.shape)} and v {tuple(self.v.shape)}; they are (d_out, r) and (d_in, r)"
            )

    def is_empty(self) -> bool:
        return self.u.shape[1] == 0

    def apply(self, base: Tensor) -> Tensor:
        sides = (base.shape[0], base[0].numel()) if base.ndim and len(base) else tuple(base.shape)
        wanted = sides[::-1] if self.stored == "in_out" else sides
        _check_shape("low-rank change", (len(self.u), len(self.v)), base, wanted)
        wide = _wide(base)
        u, v = self.u.to(wide), self.v.to(wide)
        change = v @ u.mT if self.stored == "in_out" else u @ v.mT
        return (wide + change.reshape(base.shape)).to(base.dtype)

    def scaled(self, factor: float) -> LowRank:
        return replace(self, u=self.u * factor)

    def factors(self) -> tuple[Tensor, Tensor]:
        """(d_out, r) and (d_in, r) with change of the weight = first @ second.T."""
        return self.u, self.v

    def tensors(self) -> dict[str, Tensor]:
        return {"u": self.u, "v": self.v}

    def describe(self) -> dict[str, Any]:
        return {"kind": "low_rank", "rank": self.u.shape[1]} | _transposed(self.stored)


@dataclass(frozen=True)
class Columns:
    """Add `values` (d_out, m) to the columns `indices` (m,) of a matrix (d_out, d_in)."""

    indices: Tensor
    values: Tensor
    width: int
    """d_in"""
    stored: Literal["out_in", "in_out"] = "out_in"
    """How the parameter holds the matrix: as it is, or transposed."""

    def __post_init__(self) -> None:
        _check_numbers("change of columns", values=self.values)
        which = self.indices
        if which.ndim != 1 or which.is_floating_point() or which.dtype == torch.bool:
            raise ValueError(
                f"change of columns: indices are {tuple(which.shape)} of {which.dtype}; give whole numbers (m,)"
            )
        if self.values.ndim < 2 or self.values.shape[1] != len(which):
            raise ValueError(
                f"change of columns: {len(which)} indices and values {tuple(self.values.shape)}; give (d_out, m)"
            )
        if len(which.unique()) != len(which):
            raise ValueError("change of columns: a column is named twice; add its changes up")
        if len(which) and not 0 <= int(which.min()) <= int(which.max()) < self.width:
            raise ValueError(
                f"change of columns: indices run from {int(which.min())} to {int(which.max())}, and there are columns 0 to "
                f"{self.width - 1}"
            )

    def is_empty(self) -> bool:
        return self.indices.numel() == 0

    def apply(self, base: Tensor) -> Tensor:
        edited = base.clone()
        matrix = edited.mT if self.stored == "in_out" else edited
        _check_shape("change of columns", (len(self.values), self.width), base, matrix.shape[:2])
        indices = self.indices.to(base.device)
        wide = _wide(matrix[:, indices])
        matrix[:, indices] = (wide + self.values.to(wide)).to(base.dtype)
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
        return {"kind": "columns", "columns": len(self.indices), "width": self.width} | _transposed(self.stored)


@dataclass(frozen=True)
class Shift:
    """Add `values`, in the shape of the parameter: to a bias, or to a weight whose change has no low rank."""

    values: Tensor
    stored: Literal["out_in", "in_out"] = "out_in"
    """How the parameter holds a matrix, and `values` with it: as it is, or transposed."""

    def __post_init__(self) -> None:
        _check_numbers("shift", values=self.values)

    def is_empty(self) -> bool:
        return self.values.numel() == 0

    def apply(self, base: Tensor) -> Tensor:
        _check_shape("shift", self.values.shape, base, base.shape)
        wide = _wide(base)
        return (wide + self.values.to(wide)).to(base.dtype)

    def scaled(self, factor: float) -> Shift:
        return replace(self, values=self.values * factor)

    def factors(self) -> tuple[Tensor, Tensor]:
        if self.values.ndim != 2:
            raise ValueError(f"a shift of a parameter of shape {tuple(self.values.shape)} has no low-rank factors")
        change = self.values.mT if self.stored == "in_out" else self.values
        return change, torch.eye(change.shape[1], dtype=change.dtype, device=change.device)

    def tensors(self) -> dict[str, Tensor]:
        return {"values": self.values}

    def describe(self) -> dict[str, Any]:
        norm = float(torch.linalg.vector_norm(self.values))
        return {"kind": "shift", "norm": norm} | _transposed(self.stored)


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


def transposed(delta: Delta) -> bool:
    """Whether it is of a matrix that is held transposed."""
    if isinstance(delta, Sum):
        return any(transposed(part) for part in delta.parts)
    return delta.stored == "in_out"


def rebuild(kind: dict[str, Any], tensors: dict[str, Tensor]) -> Delta:
    """The delta whose `describe()` and `tensors()` these are."""
    match kind["kind"]:
        case "low_rank":
            return LowRank(tensors["u"], tensors["v"], kind.get("stored", "out_in"))
        case "columns":
            return Columns(tensors["indices"], tensors["values"], kind["width"], kind.get("stored", "out_in"))
        case "shift":
            return Shift(tensors["values"], kind.get("stored", "out_in"))
        case "sum":
            own = [
                {name.partition(".")[2]: x for name, x in tensors.items() if name.partition(".")[0] == str(i)}
                for i in range(len(kind["parts"]))
            ]
            return Sum(tuple(rebuild(part, mine) for part, mine in zip(kind["parts"], own, strict=True)))
        case other:
            raise ValueError(f"a delta of kind {other!r} is not known: low_rank, columns, shift, sum are")
