"""What adapters can hold of an edit: each change of a matrix or a convolution as two factors."""

from __future__ import annotations

import math
import re
import warnings
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from concept_probe.erasers.erasure.deltas import Columns, Delta, LowRank, Shift, Sum
from concept_probe.erasers.erasure.parameters import find_parameter, split_address

if TYPE_CHECKING:
    from concept_probe.families import Subject

Factors = tuple[Tensor, Tensor]
"""A (r, d_in) and B (d_out, r), the change being B A; of a convolution A (r, d_in, *kernel) and B (d_out, r, 1, ...)."""
_EMBEDDING = re.compile(r"(^|[._])(\w*embeddings?|embed_\w+|wte|wpe|shared)$")


def lora_factors(
    deltas: Mapping[str, Delta], subject: Subject | None = None, *, leave_out: bool = False
) -> dict[str, dict[str, Factors]]:
    """By component and by path of the module, the factors of every change.

    ValueError naming the first change that has none: of a bias, a norm, an embedding, a convolution in groups. With
    `leave_out` such changes are left out, and a warning says how much of the edit they are. `subject` tells the kernel of
    a convolution whose change is kept as a low-rank product alone, and what modules are whatever they are called.
    """
    out: dict[str, dict[str, Factors]] = defaultdict(dict)
    lost: list[str] = []
    for where, delta in deltas.items():
        if delta.is_empty():
            continue
        component, name = split_address(where)
        path, _, leaf = name.rpartition(".")
        module, shape = _module(subject, where, component, path)
        kernel = _kernel(delta) if shape is None else tuple(shape[2:])
        what = _beyond(path, leaf, delta, module)
        if what is None:
            out[component][path] = _factors(delta, kernel)
        elif _square(delta):
            if not leave_out:
                raise ValueError(
                    f"the edit changes {where!r}: an adapter of low-rank matrices can't hold {what}; keep the whole edit with "
                    "`save`, or leave out what an adapter can't hold with export_lora(folder, leave_out=True)"
                )
            lost.append(where)
    if lost:
        _say_lost(deltas, lost, nothing=not out)
    return dict(out)


def _say_lost(deltas: Mapping[str, Delta], lost: list[str], *, nothing: bool) -> None:
    """Warn of what is left out; ValueError where that is the whole edit."""
    if nothing:
        raise ValueError(
            f"the edit changes {lost[0]!r} and nothing that an adapter of low-rank matrices can hold; use `save`"
        )
    total = sum(_square(delta) for delta in deltas.values() if not delta.is_empty())
    share = math.sqrt(sum(_square(deltas[where]) for where in lost) / total)
    more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
    warnings.warn(
        f"left out of the adapter: {lost[0]!r}{more}, {share:.2%} of the edit by norm; with the adapter the model is not quite "
        "the edited one",
        stacklevel=5,
    )


def _module(
    subject: Subject | None, where: str, component: str, path: str
) -> tuple[nn.Module | None, torch.Size | None]:
    """The module at an address and the shape of its parameter; UnknownName where `subject` lacks it."""
    if subject is None:
        return None, None
    parameter = find_parameter(subject.components, where)
    return subject.components[component].get_submodule(path), parameter.shape


def _beyond(path: str, leaf: str, delta: Delta, module: nn.Module | None) -> str | None:
    """What a change is of, where no adapter can hold it."""
    if leaf != "weight":
        return "a bias" if leaf == "bias" else f"a parameter that is called {leaf}"
    if isinstance(module, nn.Embedding) or (module is None and _EMBEDDING.search(path)):
        return "an embedding"
    if any(isinstance(part, Shift) and part.values.ndim < 2 for part in _parts(delta)):
        return "the weight of a norm"
    return "a convolution in groups" if getattr(module, "groups", 1) > 1 else None


def _parts(delta: Delta) -> list[Delta]:
    return [leaf for part in delta.parts for leaf in _parts(part)] if isinstance(delta, Sum) else [delta]


def _kernel(delta: Delta) -> tuple[int, ...]:
    """The kernel of a convolution, as its change tells it; empty for a matrix."""
    shapes = [part.values.shape[2:] for part in _parts(delta) if not isinstance(part, LowRank | Sum)]
    return tuple(max(shapes, key=len, default=()))


def _factors(delta: Delta, kernel: tuple[int, ...]) -> Factors:
    if not kernel:
        u, v = delta.factors()
        return v.mT, u
    if isinstance(delta, Sum):
        pairs = [_factors(part, kernel) for part in delta.parts if not part.is_empty()]
        return torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs], dim=1)
    ones = (1,) * len(kernel)
    if isinstance(delta, LowRank):
        return delta.v.mT.unflatten(1, (-1, *kernel)), delta.u.unflatten(1, (-1, *ones))
    if isinstance(delta, Columns):
        whole = delta.values.new_zeros(len(delta.values), delta.width, *kernel)
        whole[:, delta.indices.to(whole.device)] = delta.values
    else:
        whole = delta.values
    d_out, d_in = len(whole), whole[0].numel()
    eye = torch.eye(min(d_out, d_in), dtype=whole.dtype, device=whole.device)
    if d_out <= d_in:
        return whole, eye.unflatten(1, (-1, *ones))
    return eye.unflatten(1, (-1, *kernel)), whole.flatten(1).unflatten(1, (-1, *ones))


def _square(delta: Delta) -> float:
    """Sum of squares of the change."""
    parts = _parts(delta)
    if all(isinstance(part, Shift) for part in parts):
        return float(sum(part.values.double() for part in parts if isinstance(part, Shift)).square().sum())  # pyright: ignore
    a, b = (x.double().flatten(1) for x in _factors(delta, _kernel(delta)))
    return float(((b.mT @ b) * (a @ a.mT)).sum().clamp(min=0))
