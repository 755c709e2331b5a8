"""Every module and tensor under a module, as `named_modules`, `named_parameters` and `named_buffers` give them.

Subjects look at all of them before each answer, and at each switch of an erasure. A model has a thousand or more, through
which torch's own nested generators take longer than a pass of a small one.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def modules_under(root: nn.Module) -> list[tuple[str, nn.Module]]:
    """`list(root.named_modules())`: paths with modules, each module once."""
    out: list[tuple[str, nn.Module]] = []
    _collect(root, "", set(), out)
    return out


def tensors_under(root: nn.Module) -> list[tuple[str, Tensor]]:
    """`[*root.named_parameters(), *root.named_buffers()]`: paths with tensors, each tensor once of either kind."""
    modules = modules_under(root)
    return [*_held(modules, "_parameters"), *_held(modules, "_buffers")]


def _collect(module: nn.Module, path: str, seen: set[int], out: list[tuple[str, nn.Module]]) -> None:
    seen.add(id(module))
    out.append((path, module))
    children = module.__dict__["_modules"]
    if children:
        before = f"{path}." if path else ""
        for name, child in children.items():
            if child is not None and id(child) not in seen:
                _collect(child, before + name, seen, out)


def _held(modules: list[tuple[str, nn.Module]], kind: str) -> list[tuple[str, Any]]:
    seen: set[int] = set()
    out: list[tuple[str, Any]] = []
    for path, module in modules:
        held = module.__dict__[kind]
        if held:
            before = f"{path}." if path else ""
            for name, tensor in held.items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    out.append((before + name, tensor))
    return out
