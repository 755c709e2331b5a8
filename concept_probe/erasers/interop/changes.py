"""From what a file says of a module to changes of parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from concept_probe.erasers.erasure.deltas import Delta, LowRank, Shift
from concept_probe.erasers.erasure.parameters import find_parameter, split_address
from concept_probe.erasers.interop.groups import WHOLE_PARAMETER, ModuleGroup, refuse_encoded
from concept_probe.erasers.interop.places import Piece
from concept_probe.erasers.interop.products import Product, one_number, product, with_magnitude
from concept_probe.types import Site

if TYPE_CHECKING:
    from concept_probe.families import Subject

Stored = Literal["out_in", "in_out"]


def changes(
    group: ModuleGroup, leaf: str, pieces: tuple[Piece, ...], subject: Subject, scale: float | None = None
) -> Iterator[tuple[Piece, Delta]]:
    """Places and changes that one group makes; none where a parameter stays as it is.

    ValueError where shapes don't fit or numbers are not finite.
    """
    if leaf == WHOLE_PARAMETER:
        yield from _put(group, group.tensors[WHOLE_PARAMETER], pieces, subject)
        return
    if leaf == "bias":
        yield from _bias(group, pieces, subject, scale)
        return
    said = {name: x for name, x in group.tensors.items() if name not in ("diff", "diff_bias", "set", "up_bias")}
    if "set" in group.tensors:
        if len(group.tensors) > 1:
            raise ValueError(f"{group.stem!r} is set, and changed besides ({', '.join(group.tensors)})")
        yield from _put(group, group.tensors["set"], pieces, subject)
        return
    if "diff" in group.tensors:
        if set(said) - {"alpha"}:
            raise ValueError(f"{group.stem!r} has a whole change beside {', '.join(said)}")
        yield from _added(group, group.tensors["diff"].float(), pieces, subject)
        return
    found = product(group.stem, said, scale)
    kind = next((name for name in ("magnitude", "magnitude_out") if name in said), None)
    if kind is not None:
        base = torch.cat([_matrix(piece, subject) for piece in pieces])
        change = found.whole() if isinstance(found, Product) else found
        if change.shape != base.shape:
            raise ValueError(f"{group.stem!r}: a change of {tuple(change.shape)} of a weight of {tuple(base.shape)}")
        found = with_magnitude(base, change.to(base), said[kind].to(base.device), outputs=kind == "magnitude_out")
    yield from _multiplied(group, found, pieces, subject)


def _multiplied(
    group: ModuleGroup, found: Product | Tensor, pieces: tuple[Piece, ...], subject: Subject
) -> Iterator[tuple[Piece, Delta]]:
    sides = found.sides if isinstance(found, Product) else tuple(found.shape)
    for piece in pieces:
        parameter, stored = find_parameter(subject.components, piece.where), _stored(piece, subject)
        shape = _weight(piece, subject).shape
        rows = slice(*piece.rows) if piece.rows else slice(None)
        height = sides[0] if piece.rows is None else piece.rows[1] - piece.rows[0]
        if (height, sides[1]) != (shape[0], shape[1:].numel()) or piece.turned:
            raise ValueError(f"{group.stem!r} is a change of {sides}, and {piece.where!r} is {tuple(parameter.shape)}")
        if isinstance(found, Product):
            u = found.u[rows].to(parameter.device)
            if bool(u.any()) and bool(found.v.any()):
                yield piece, LowRank(_padded(u, piece, len(parameter)), found.v.to(u.device), stored)
        elif bool(found[rows].any()):
            values = _padded(found[rows].to(parameter.device), piece, len(parameter))
            values = values.mT if stored == "in_out" else values
            yield piece, Shift(values.reshape(parameter.shape).contiguous(), stored)


def _bias(
    group: ModuleGroup, pieces: tuple[Piece, ...], subject: Subject, scale: float | None
) -> Iterator[tuple[Piece, Delta]]:
    values = group.tensors.get("diff_bias")
    if values is None:
        alpha, down = one_number(group.stem, group.tensors.get("alpha")), group.tensors.get("down")
        if scale is None:
            scale = 1.0 if alpha is None or down is None else alpha / len(down)
        values = group.tensors["up_bias"].float() * scale
    yield from _added(group, values.float(), pieces, subject)


def _added(
    group: ModuleGroup, values: Tensor, pieces: tuple[Piece, ...], subject: Subject
) -> Iterator[tuple[Piece, Delta]]:
    for piece, parameter, mine in _dealt(group, values, pieces, subject):
        if bool(mine.any()):
            whole = _padded(mine.to(parameter.device), piece, len(parameter))
            yield piece, Shift(whole, _stored(piece, subject))


def _put(group: ModuleGroup, new: Tensor, pieces: tuple[Piece, ...], subject: Subject) -> Iterator[tuple[Piece, Delta]]:
    """Of a parameter as it is to be. What the dtype of the file, or of the subject, can't tell from the subject's own value
    is no change."""
    refuse_encoded(group.keys[0], new)
    for piece, parameter, mine in _dealt(group, new, pieces, subject):
        base = parameter.data[slice(*piece.at)] if piece.at else parameter.data
        mine = mine.to(base.device)
        same = (base.to(mine.dtype) == mine) | (mine.to(base.dtype) == base)
        if not bool(same.all()):
            values = torch.where(same, 0.0, mine.float() - base.float())
            yield piece, Shift(_padded(values, piece, len(parameter)), _stored(piece, subject))


def _dealt(
    group: ModuleGroup, values: Tensor, pieces: tuple[Piece, ...], subject: Subject
) -> Iterator[tuple[Piece, Tensor, Tensor]]:
    """Each piece with its parameter and its part of `values`, in the parameter's shape."""
    for piece in pieces:
        parameter = find_parameter(subject.components, piece.where)
        mine = values.mT if piece.turned else values
        mine = mine[slice(*piece.rows)] if piece.rows else mine
        wanted = [piece.at[1] - piece.at[0], *parameter.shape[1:]] if piece.at else [*parameter.shape]
        if _plain_shape(mine.shape) != _plain_shape(wanted):
            raise ValueError(f"{group.stem!r} is {tuple(mine.shape)}, and {piece.where!r} is {tuple(parameter.shape)}")
        yield piece, parameter, mine.reshape(wanted)


def _plain_shape(shape: torch.Size | list[int]) -> list[int]:
    """Without the kernel of a convolution of one by one, which some models keep as a matrix."""
    out = list(shape)
    while len(out) > 2 and out[-1] == 1:
        out.pop()
    return out


def _padded(values: Tensor, piece: Piece, rows: int) -> Tensor:
    """With zeros in the rows of the parameter that the file doesn't speak of."""
    if piece.at is None:
        return values
    out = values.new_zeros(rows, *values.shape[1:])
    out[slice(*piece.at)] = values
    return out


def _matrix(piece: Piece, subject: Subject) -> Tensor:
    """The part of the weight that a piece is of, (d_out, d_in · kernel), at least float32."""
    weight = _weight(piece, subject)
    return weight.reshape(len(weight), -1).float()


def _weight(piece: Piece, subject: Subject) -> Tensor:
    """The same as it is, with its outputs first."""
    weight = find_parameter(subject.components, piece.where).data
    weight = weight.mT if _stored(piece, subject) == "in_out" else weight
    return weight[slice(*piece.at)] if piece.at else weight


def _stored(piece: Piece, subject: Subject) -> Stored:
    component, name = split_address(piece.where)
    path, _, leaf = name.rpartition(".")
    return subject.orientation(Site(component, path, "weight")) if leaf == "weight" else "out_in"
