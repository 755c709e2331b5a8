"""Which weights a forward pass reads, and why it may pass a module over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

DESCRIPTIONS = frozenset({"shape", "dtype", "device", "ndim", "requires_grad", "grad", "is_cuda", "is_meta", "layout"})
"""Attributes of a tensor that tell nothing of its numbers."""


class Reads(TorchFunctionMode):
    """Inside, notices which of some weights are given to a function of torch; changes nothing."""

    def __init__(self, weights: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        self._weights = {id(weight): where for where, weight in weights.items()}

    @property
    def unread(self) -> tuple[str, ...]:
        """Addresses of those that nothing has read so far."""
        return tuple(self._weights.values())

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if self._weights and not _describes(func):
            for one in _flat((*args, *given.values())):
                self._weights.pop(id(one), None)
        return func(*args, **given)


def _describes(func: Any) -> bool:
    """Whether it is the getter of an attribute that tells nothing of the numbers."""
    return getattr(getattr(func, "__self__", None), "__name__", "") in DESCRIPTIONS


def _flat(given: Iterable[Any]) -> Iterator[Any]:
    for one in given:
        if isinstance(one, list | tuple):
            yield from _flat(one)
        else:
            yield one


def passed_over(root: nn.Module, path: str) -> str:
    """Why a pass may not call the module at `path` of `root`, or not read its weight, and what mends it."""
    names = path.split(".")
    above = [(".".join(names[:end]), root.get_submodule(".".join(names[:end]))) for end in range(len(names), -1, -1)]
    for where, module in above:
        shown = where or "the component"
        if getattr(module, "fused_projections", False):
            return (
                f"the projections of {shown!r} are fused, and these weights stay without a use: undo it with "
                "pipeline.unfuse_qkv_projections()"
            )
        if "forward" in vars(module):
            return f"the forward pass of {shown!r} has been replaced: give the model without what replaced it"
        processor = getattr(module, "processor", None)
        if processor is not None:
            return (
                f"{shown!r} is computed by the processor {type(processor).__name__}, which does without it: "
                "set the library's own again with set_default_attn_processor()"
            )
    return "the model computes without it"
