"""The check that every subject passes, whichever door it came in by.

What holds for one family alone, such as which parts its pipeline has, stands in that family's `adopt`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from concept_probe.families.parts import check_parts
from concept_probe.families.quantised import inner_tensors
from concept_probe.families.reading import Mismatch

if TYPE_CHECKING:
    from concept_probe.families.subject import Subject

_KEPT_IN_FULL = ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict")
"""Attributes of a model that name parts which its library leaves in float32."""


def check_subject(subject: Subject, mismatches: Sequence[Mismatch] = ()) -> None:
    """Raise ValueError, naming component and tensor, for a subject whose answers would not be the model's.

    - a part is wrapped, replaced or moved during a pass (see `check_parts`), or a tensor is not in memory;
    - a tensor is not in the files that the subject was read from, or one in them has no place in it (`mismatches`);
    - a parameter or a saved buffer holds a value that is no finite number;
    - matrices of one component are of several dtypes, where its class doesn't keep some of them in full.
    """
    for mismatch in mismatches:
        where = f"{subject.name}: {mismatch.component}"
        if mismatch.missing:
            raise ValueError(
                f"{where} lacks {_few(mismatch.missing)} in its files, so it was made at random; the files are another "
                "model's or not whole: get them again, or give the model that they belong to"
            )
        if mismatch.left:
            raise ValueError(
                f"{where} has no place for {_few(mismatch.left)} of its files, so the model is not what was saved; its "
                "config.json is another model's: get both again"
            )
    check_parts(subject.name, subject.components, subject.pipeline)
    for component, module in subject.components.items():
        for name, tensor in _tensors(module):
            if tensor.is_meta:
                raise ValueError(
                    f"{subject.name}: '{component}/{name}' is not in memory (meta device): it is offloaded, or was never "
                    "read; load the model whole"
                )
            if not all(_finite(inner) for _, inner in inner_tensors(name, tensor)):
                raise ValueError(
                    f"{subject.name}: '{component}/{name}' holds values that are no finite numbers in {tensor.dtype}; the "
                    "file is damaged, or its numbers need a wider dtype"
                )
        _check_dtypes(subject.name, component, module)


def _check_dtypes(name: str, component: str, root: nn.Module) -> None:
    """Vectors may be in full where matrices are in half: norms often are. So may adapters, which cast; what has eight bits
    or fewer is quantised."""
    adapted = tuple(f"{path}." for path, m in root.named_modules() if path and hasattr(m, "base_layer"))
    kept = tuple(
        part
        for m in root.modules()
        for key in _KEPT_IN_FULL
        for part in (getattr(m, key, None) or ())
        if isinstance(part, str)
    )
    found: dict[torch.dtype, list[str]] = {}
    for where, x in root.named_parameters():
        plain = x.is_floating_point() and x.element_size() > 1 and x.ndim > 1
        adapter = where.startswith(adapted) and ".base_layer." not in where
        if plain and not adapter and not any(part in where for part in kept):
            found.setdefault(x.dtype, []).append(where)
    if len(found) > 1:
        held = ", ".join(f"{len(names)} in {dtype} ({names[0]!r})" for dtype, names in found.items())
        widest = max(found, key=lambda dtype: torch.finfo(dtype).bits)
        raise ValueError(
            f"{name}: {component} holds matrices of several dtypes, {held}; a pass through it mixes them or fails. Give it one "
            f"dtype: pipeline.{component}.to({widest}), or load it with dtype="
        )


def _few(names: Sequence[str], count: int = 3) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(map(repr, names[:count])) + more


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter, and those buffers that belong to what is saved."""
    saved = module.state_dict().keys()
    yield from module.named_parameters()
    yield from ((name, tensor) for name, tensor in module.named_buffers() if name in saved)


def _finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    values = tensor.detach()
    values = values.float() if values.element_size() < 2 else values  # eight bits have no arithmetic
    return bool(torch.stack(torch.aminmax(values)).isfinite().all())
