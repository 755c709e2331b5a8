"""Weights that are kept as codes: those whose parts can be read are read by them, and those that can't be are named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

_PACKED = {
    "bitsandbytes": "bitsandbytes", "torch.ao.nn.quantized": "torch.ao's eager quantisation", "gptqmodel": "GPTQ",
    "auto_gptq": "GPTQ", "awq": "AWQ", "hqq": "HQQ", "quanto": "quanto",
}  # fmt: skip
"""Module of a class to whose codes its matrix is kept in, in a form that only its own kernel reads."""


def inner_tensors(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """A plain tensor itself; of one that wraps others, as torchao's quantised ones do, these: codes, scales, zero points.

    >>> [name for name, _ in inner_tensors("weight", quantised)]
    ['weight#qdata', 'weight#scale']
    """
    held = tensor.data if isinstance(tensor, nn.Parameter) else tensor
    if not hasattr(type(held), "__tensor_flatten__"):
        yield name, tensor
        return
    wrapper: Any = held
    for inner in wrapper.__tensor_flatten__()[0]:
        yield from inner_tensors(f"{name}#{inner}", getattr(wrapper, inner))


def refuse_packed(name: str, components: Mapping[str, Any]) -> None:
    """ValueError, naming the place and the way out, for a matrix that is kept in a form of which nothing can be told."""
    for component, root in components.items():
        if not isinstance(root, nn.Module):
            continue
        for path, module in root.named_modules():
            home = type(module).__module__
            whose = next((w for start, w in _PACKED.items() if home == start or home.startswith(f"{start}.")), None)
            if whose is None and torch.is_tensor(getattr(module, "qweight", None)):
                whose = "a packed format (qweight)"
            if whose is not None:
                raise ValueError(
                    f"{name}: '{component}/{path}' is a {type(module).__name__}, whose matrix is kept as codes by {whose}; what is "
                    "read from it, or changed in it, would not be what the model computes. Load the model without that "
                    "quantisation (dtype=torch.bfloat16 needs half of float32), or quantise it by torchao, whose weights can be read"
                )
