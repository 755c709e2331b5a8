"""Find the parameter an edit means, and refuse those where an edit would miss or act twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from concept_probe.families.weights import refuse_composed
from concept_probe.registry import UnknownName, look_up
from concept_probe.types import Site

if TYPE_CHECKING:
    from concept_probe.families import Subject


def address(site: Site, name: str = "weight") -> str:
    """Address of a parameter of the module at `site`: `component/path:weight`."""
    return f"{site.component}/{site.path}:{name}"


def parameters_below(subject: Subject, site: Site) -> list[str]:
    """Addresses of all parameters of the module at `site`, those of its parts included."""
    names = [f"{site.path}.{name}" for name, _ in subject.module(site).named_parameters()]
    return [f"{site.component}/{path}:{leaf}" for path, _, leaf in (name.rpartition(".") for name in names)]


def split_address(where: str) -> tuple[str, str]:
    """`component/path:weight` -> (`component`, `path.weight`), the name within the component."""
    component, slash, rest = where.partition("/")
    path, colon, name = rest.rpartition(":")
    if not (component and slash and path and colon and name):
        raise ValueError(f"parameter address {where!r} is not of the form component/path:weight or component/path:bias")
    return component, f"{path}.{name}"


def find_parameter(components: Mapping[str, nn.Module], where: str) -> nn.Parameter:
    """The parameter at an address.

    Raises UnknownName where there is none, ValueError where it can't be edited in place (quantised, offloaded to the
    meta device, under an adapter, or made from others).
    """
    component, name = split_address(where)
    module = look_up(components, component, "component", f"asked for parameter {where!r}")
    owner = name.rpartition(".")[0]
    try:
        module.get_submodule(owner)
    except AttributeError:
        raise _not_found(module, where, component, name) from None
    refuse_composed(module, owner, where)
    try:
        parameter = module.get_parameter(name)
    except AttributeError:
        raise _not_found(module, where, component, name) from None
    if not parameter.is_floating_point() or type(parameter.data) is not Tensor:
        raise ValueError(
            f"parameter {where!r} is quantised ({type(parameter.data).__name__}, {parameter.dtype}); "
            "an edit needs plain floating-point weights: load the subject without quantisation, put the edit in, and quantise that"
        )
    if parameter.device.type == "meta":
        raise ValueError(f"parameter {where!r} is offloaded (meta device); load the subject without offloading")
    return parameter


def _not_found(module: nn.Module, where: str, component: str, name: str) -> ValueError | UnknownName:
    owner, _, leaf = name.rpartition(".")
    if any(n == name for n, _ in module.named_buffers()) or _has_attribute(module, owner, leaf):
        return ValueError(
            f"parameter {where!r} is not a plain parameter (quantised or fused); "
            "load the subject without quantisation to edit it"
        )
    known = (n.rpartition(".") for n, _ in module.named_parameters(remove_duplicate=False))
    return UnknownName("parameter", where, [f"{component}/{owner}:{leaf}" for owner, _, leaf in known])


def _has_attribute(module: nn.Module, owner: str, leaf: str) -> bool:
    try:
        return getattr(module.get_submodule(owner), leaf, None) is not None
    except AttributeError:
        return False


def refuse_shared(components: Mapping[str, nn.Module], edited: Mapping[str, nn.Parameter]) -> None:
    """Raise ValueError where an edited parameter lives under a second name: an edit would act there too, or miss it."""
    names: dict[int, set[str]] = {}
    seen: dict[int, str] = {}
    for component, module in components.items():
        for name, parameter in module.named_parameters(remove_duplicate=False):
            if parameter.device.type == "meta" or type(parameter.data) is not Tensor:
                continue
            key = parameter.data.untyped_storage().data_ptr()
            owner, _, leaf = name.rpartition(".")
            names.setdefault(key, set()).add(f"{component}/{owner}:{leaf}")
    for where, parameter in edited.items():
        key = parameter.data.untyped_storage().data_ptr()
        others = sorted((names.get(key, set()) | {seen.get(key, where)}) - {where})
        if others:
            raise ValueError(
                f"parameter {where!r} is tied to {', '.join(map(repr, others))}: an edit of one would change or miss "
                "the other; nothing was applied. Untie them (give one its own copy of the tensor) first"
            )
        seen[key] = where


def dtype_of(parameter: nn.Parameter) -> torch.dtype:
    """The dtype deltas for `parameter` are computed in: at least float32."""
    return parameter.dtype if parameter.dtype == torch.float64 else torch.float32
