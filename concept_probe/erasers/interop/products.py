"""The change of a weight that the tensors of an adapter multiply out to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

LORA = {"down", "up", "mid", "up_bias", "magnitude", "magnitude_out", "alpha"}
EMBEDDING = {"embedding_down", "embedding_up", "alpha"}
LOHA = {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2", "alpha"}
LOKR = {"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2", "alpha"}


@dataclass(frozen=True)
class Product:
    """u vᵀ; `u` is (d_out, r), `v` is (d_in, r), of a convolution (d_in · kernel, r). Scaled."""

    u: Tensor
    v: Tensor

    @property
    def sides(self) -> tuple[int, int]:
        return len(self.u), len(self.v)

    def whole(self) -> Tensor:
        return self.u @ self.v.mT


def product(stem: str, tensors: Mapping[str, Tensor], scale: float | None = None) -> Product | Tensor:
    """The change that an adapter's tensors say, without its magnitude: low-rank, or whole (d_out, d_in · kernel).

    `scale` is what a configuration beside the file says; None: α / rank where the file has an α, else 1. ValueError for
    tensors that don't belong together.
    """
    held = {name: x.float() for name, x in tensors.items()}
    alpha = one_number(stem, held.get("alpha"))
    if "down" in held or "up" in held:
        return _low_rank(stem, held, alpha, scale)
    if "embedding_down" in held or "embedding_up" in held:
        _refuse(stem, held, EMBEDDING, ("embedding_down", "embedding_up"))
        u, v = held["embedding_down"].mT, held["embedding_up"]
        if u.ndim != 2 or v.ndim != 2 or u.shape[1] != v.shape[1]:
            raise ValueError(_unlike(stem, held))
        return Product(u * _factor(u.shape[1], alpha, scale), v)
    if any(name.startswith("hada") for name in held):
        _refuse(stem, held, LOHA, ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"))
        one, two = (_side(stem, held, f"hada_w{i}", held.get(f"hada_t{i}")) for i in (1, 2))
        if one.shape != two.shape:
            raise ValueError(_unlike(stem, held))
        return (one * two).flatten(1) * _factor(len(held["hada_w1_b"]), alpha, scale)
    if any(name.startswith("lokr") for name in held):
        return _kronecker(stem, held, alpha, scale)
    raise ValueError(f"{stem!r}: {', '.join(tensors)} is no whole adapter of a module; get the file again")


def with_magnitude(base: Tensor, change: Tensor, magnitude: Tensor, *, outputs: bool) -> Tensor:
    """What DoRA (arXiv 2402.09353) makes of W and of W + `change`: each row, or column, brought to its own length.

    All are (d_out, d_in · kernel); `magnitude` has a length for each output, or for each input, as its shape says:
    (d_out, 1, ...) or (1, d_in, ...); with `outputs` for each output in any case. Returns the change of W. ValueError for
    another number of lengths.
    """
    moved = base + change
    rows, lengths = len(base), magnitude.float()
    if lengths.numel() == rows and (outputs or lengths.shape[0] == rows):
        scaled = moved * (lengths.reshape(rows, 1) / moved.norm(dim=1, keepdim=True))
    elif not outputs and lengths.ndim > 1 and lengths.shape[0] == 1 and moved.shape[1] % lengths.numel() == 0:
        by_input = moved.reshape(rows, lengths.numel(), -1)
        scaled = by_input * (lengths.reshape(1, -1, 1) / by_input.norm(dim=(0, 2), keepdim=True))
        scaled = scaled.reshape_as(moved)
    else:
        raise ValueError(
            f"magnitudes {tuple(magnitude.shape)} are no lengths of rows or columns of {tuple(base.shape)}"
        )
    return scaled - base


def _low_rank(stem: str, held: Mapping[str, Tensor], alpha: float | None, scale: float | None) -> Product:
    _refuse(stem, held, LORA, ("down", "up"))
    down, up, mid = held["down"], held["up"], held.get("mid")
    rank = len(down)
    if mid is not None:  # up @ mid @ down, the kernel in the middle
        if mid.ndim != 4 or mid.shape[1] != rank:
            raise ValueError(_unlike(stem, held))
        down = torch.einsum("abhw,bi->aihw", mid, down.flatten(1))
    if up.shape[1] != len(down) or up[0].numel() != up.shape[1]:
        raise ValueError(_unlike(stem, held))
    return Product(up.flatten(1) * _factor(rank, alpha, scale), down.flatten(1).mT)


def _kronecker(stem: str, held: Mapping[str, Tensor], alpha: float | None, scale: float | None) -> Tensor:
    if set(held) - LOKR:
        _refuse(stem, held, LOKR, ())
    first = _side(stem, held, "lokr_w1")
    second = _side(stem, held, "lokr_w2", held.get("lokr_t2"))
    ranks = [len(held[name]) for name in ("lokr_w1_b", "lokr_w2_b") if name in held]
    factor = _factor((ranks or [1])[-1], alpha, scale) if ranks or scale is not None else 1.0
    first = first.reshape(*first.shape, *(1,) * (second.ndim - first.ndim))
    return torch.kron(first, second).flatten(1) * factor


def _side(stem: str, held: Mapping[str, Tensor], name: str, core: Tensor | None = None) -> Tensor:
    """A factor of LoHa or LoKr: whole, as a product of two, or of three with a kernel as its core."""
    if name in held:
        return held[name]
    a, b = held.get(f"{name}_a"), held.get(f"{name}_b")
    if a is None or b is None:
        raise ValueError(f"{stem!r}: {name} is neither there whole nor as {name}_a and {name}_b; get the file again")
    # Checked here, since a product stretches a side of 1 without a word.
    fits = (a.shape[1],) == b.shape[:1] if core is None else (len(a), len(b)) == core.shape[:2]
    if a.ndim != 2 or b.ndim != 2 or not fits:
        raise ValueError(_unlike(stem, held))
    return a @ b if core is None else torch.einsum("ij...,jr,ip->pr...", core, b, a)


def _unlike(stem: str, held: Mapping[str, Tensor]) -> str:
    shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in held.items() if name != "alpha")
    return f"{stem!r}: its factors ({shapes}) don't multiply to a change of a weight; get the file again"


def _factor(rank: int, alpha: float | None, scale: float | None) -> float:
    if scale is not None:
        return scale
    return 1.0 if alpha is None else alpha / rank


def one_number(stem: str, x: Tensor | None) -> float | None:
    """Of an α, where there is one. ValueError for several."""
    if x is None:
        return None
    if x.numel() != 1:
        raise ValueError(f"{stem!r}: alpha is {tuple(x.shape)}; it is one number")
    return float(x)


def _refuse(stem: str, held: Mapping[str, Tensor], known: set[str], needed: tuple[str, ...]) -> None:
    odd, lacking = sorted(set(held) - known), [name for name in needed if name not in held]
    if lacking:
        raise ValueError(f"{stem!r} has {', '.join(held)} and lacks {', '.join(lacking)}; get the file again")
    if odd:
        raise ValueError(
            f"{stem!r} has {', '.join(odd)} beside an adapter of another kind; nobody says how they add up"
        )
