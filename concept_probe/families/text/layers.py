"""Where the sites of any text encoder are: CLIP, T5, and language models that are read as one.

Found by the build of their layers, as in `sites`: a layer is what holds an attention and an MLP, and its MLP's value matrix
is the one that writes back into the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from concept_probe.types import Site

WRITERS = ("fc2", "down_proj", "wo", "c_proj")
"""What the matrix is called with which an MLP writes."""


@dataclass(frozen=True)
class EncoderLayer:
    """One layer's modules, by path in the encoder."""

    holder: str
    """The list that the layer is in."""
    stream: str
    """The module whose output is the residual stream behind the layer."""
    mlp: str
    value: str
    """The MLP's last matrix."""


def encoder_layers(encoder: nn.Module) -> list[EncoderLayer]:
    """The layers of the encoder's text model, from the first to the last. Raises ValueError if it has none."""
    for path, module in encoder.named_modules():
        if isinstance(module, nn.ModuleList) and len(module):
            layers = [_layer(path, i, one) for i, one in enumerate(module)]
            if all(layer is not None for layer in layers) and not _of_pictures(encoder, path):
                return [layer for layer in layers if layer is not None]
    raise ValueError(f"{type(encoder).__name__} has no list of layers with an attention and an MLP")


def _of_pictures(encoder: nn.Module, path: str) -> bool:
    """Whether a list of layers belongs to the tower that looks at pictures, of an encoder for both."""
    names = path.split(".")
    return any(hasattr(encoder.get_submodule(".".join(names[:end])), "patch_embed") for end in range(1, len(names)))


def _layer(holder: str, number: int, module: nn.Module) -> EncoderLayer | None:
    path = f"{holder}.{number}"
    mlp = getattr(module, "mlp", None)
    if hasattr(module, "self_attn") and isinstance(mlp, nn.Module):
        value = _value(mlp)
        return None if value is None else EncoderLayer(holder, path, f"{path}.mlp", f"{path}.mlp.{value}")
    parts = getattr(module, "layer", None)  # T5: attention and MLP are members, each with its own residual sum
    if isinstance(parts, nn.ModuleList) and len(parts) == 2 and hasattr(parts[0], "SelfAttention"):
        name = next((n for n, one in parts[1].named_children() if _value(one) is not None), None)
        if name is not None:
            last = f"{path}.layer.1"
            return EncoderLayer(holder, last, f"{last}.{name}", f"{last}.{name}.{_value(getattr(parts[1], name))}")
    return None


def _value(mlp: nn.Module) -> str | None:
    return next((name for name in WRITERS if isinstance(getattr(mlp, name, None), nn.Linear)), None)


def final_norm_of(encoder: nn.Module) -> str:
    """Path of the norm behind the last layer: the first one that is registered after the list of layers, or after what
    holds it."""
    path = encoder_layers(encoder)[0].holder
    while path:
        parent, _, name = path.rpartition(".")
        children = list(encoder.get_submodule(parent).named_children())
        behind = children[[n for n, _ in children].index(name) + 1 :]
        found = next((n for n, module in behind if "norm" in type(module).__name__.lower()), None)
        if found is not None:
            return f"{parent}.{found}" if parent else found
        path = parent
    raise ValueError(f"{type(encoder).__name__} has no norm behind its layers")


def embedding_of(encoder: nn.Module) -> str:
    """Path of the module that looks tokens up: of several that share their weight, as T5 has, the one beside the layers."""
    weight = encoder.get_input_embeddings().weight  # pyright: ignore[reportCallIssue]
    holder = encoder_layers(encoder)[0].holder.split(".")

    def near(path: str) -> int:
        names = path.split(".")
        return next(
            (i for i, (a, b) in enumerate(zip(names, holder, strict=False)) if a != b), min(len(names), len(holder))
        )

    found = [p for p, m in encoder.named_modules() if isinstance(m, nn.Embedding) and m.weight is weight]
    return max(found, key=near)


def hidden_state(encoder: nn.Module, index: int) -> str:
    """Path of the module whose output libraries call `hidden_states[index]`: 0 the embeddings, then a layer each, and
    the last one behind the final norm.

    Raises ValueError for one that the encoder does not have.
    """
    layers = encoder_layers(encoder)
    at = index + len(layers) + 1 if index < 0 else index
    if not 0 <= at <= len(layers):
        raise ValueError(f"hidden state {index} of {type(encoder).__name__} was asked for; it has {len(layers)} layers")
    if at == len(layers):
        return final_norm_of(encoder)
    if at == 0:
        return embedding_of(encoder)
    return layers[at - 1].stream


def encoder_sites(component: str, encoder: nn.Module, *, reads: Sequence[str]) -> dict[str, tuple[Site, ...]]:
    """Roles to sites of one text encoder; `reads` are the paths whose outputs the denoiser reads."""
    layers = encoder_layers(encoder)
    return {
        "token_embedding": (Site(component, embedding_of(encoder)),),
        "text_stream": tuple(Site(component, layer.stream) for layer in layers),
        "text_mlp_hidden": tuple(Site(component, layer.value, "in") for layer in layers),
        "text_mlp_out": tuple(Site(component, layer.mlp) for layer in layers),
        "text_out": tuple(Site(component, path) for path in reads),
        "mlp_value": tuple(Site(component, layer.value, "weight") for layer in layers),
    }
