"""Where the sites of a text encoder and of a conditional U-Net are, found by the shape of their modules.

Paths differ between library versions and checkpoints, the build of a block does not; so nothing here
compares a path with a fixed string, except for the order of a U-Net's three stages.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from concept_probe.types import Site

STAGES = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}


def path_of(root: nn.Module, wanted: nn.Module) -> str:
    """The path of a module inside `root`.

    Raises LookupError if it is not there.
    """
    for path, module in root.named_modules():
        if module is wanted:
            return path
    raise LookupError(f"{type(wanted).__name__} is no part of {type(root).__name__}")


def text_layers(encoder: nn.Module) -> tuple[str, list[nn.Module]]:
    """Path and members of the list of transformer layers: those with a `self_attn` and an `mlp` of two matrices.

    Raises ValueError if the encoder has none.
    """
    for path, module in encoder.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) and all(_is_text_layer(m) for m in module):
            return path, list(module)
    raise ValueError(f"{type(encoder).__name__} has no list of layers with self_attn and mlp.fc1, mlp.fc2")


def _is_text_layer(module: nn.Module) -> bool:
    mlp = getattr(module, "mlp", None)
    return hasattr(module, "self_attn") and isinstance(getattr(mlp, "fc2", None), nn.Linear)


def final_norm(encoder: nn.Module) -> str:
    """Path of the layer norm that follows the last layer."""
    layers, _ = text_layers(encoder)
    outside = [p for p, m in encoder.named_modules() if isinstance(m, nn.LayerNorm) and not p.startswith(layers + ".")]
    if not outside:
        raise ValueError(f"{type(encoder).__name__} has no layer norm outside its layers")
    return outside[-1]


def projection(encoder: nn.Module) -> str | None:
    """Path of the matrix that makes the pooled embedding; None where the encoder has none."""
    layers, _ = text_layers(encoder)
    outside = [p for p, m in encoder.named_modules() if isinstance(m, nn.Linear) and not p.startswith(layers + ".")]
    return outside[-1] if outside else None


def text_sites(component: str, encoder: nn.Module, *, reads: str, pools: bool) -> dict[str, tuple[Site, ...]]:
    """Roles to sites of one text encoder.

    `reads` is the path whose output cross-attention reads; `pools` says whether the denoiser reads its projection.
    """
    path, layers = text_layers(encoder)
    each = [f"{path}.{i}" for i in range(len(layers))]
    embedding = path_of(encoder, encoder.get_input_embeddings())  # pyright: ignore[reportCallIssue]
    roles = {
        "token_embedding": (Site(component, embedding),),
        "text_stream": tuple(Site(component, p) for p in each),
        "text_mlp_hidden": tuple(Site(component, f"{p}.mlp.fc2", "in") for p in each),
        "text_mlp_out": tuple(Site(component, f"{p}.mlp") for p in each),
        "text_out": (Site(component, reads),),
        "mlp_value": tuple(Site(component, f"{p}.mlp.fc2", "weight") for p in each),
    }
    pooled = projection(encoder)
    if pools and pooled:
        roles["text_pooled"] = (Site(component, pooled),)
    return roles


def cross_attentions(unet: nn.Module) -> list[str]:
    """Paths of the attentions that read the text, from the first to the last."""
    found = [p for p, m in _in_order(unet) if getattr(m, "is_cross_attention", False) and hasattr(m, "to_k")]
    if not found:
        raise ValueError(f"{type(unet).__name__} has no cross-attention with to_k and to_v")
    return found


def unet_sites(component: str, unet: nn.Module) -> dict[str, tuple[Site, ...]]:
    """Roles to sites of a conditional U-Net."""
    cross = cross_attentions(unet)
    blocks = [p for p, m in _in_order(unet) if isinstance(getattr(m, "transformer_blocks", None), nn.ModuleList)]
    return {
        "cross_key": tuple(Site(component, f"{p}.to_k") for p in cross),
        "cross_value": tuple(Site(component, f"{p}.to_v") for p in cross),
        "cross_key_weight": tuple(Site(component, f"{p}.to_k", "weight") for p in cross),
        "cross_value_weight": tuple(Site(component, f"{p}.to_v", "weight") for p in cross),
        "cross_out": tuple(Site(component, p) for p in cross),
        "block_out": tuple(Site(component, p) for p in blocks),
        "cross_query": tuple(Site(component, f"{p}.to_q") for p in cross),
        "denoiser_in": (Site(component, path_of(unet, unet.conv_in), "in"),),  # pyright: ignore[reportArgumentType]
        "denoiser_out": (Site(component, path_of(unet, unet.conv_out)),),  # pyright: ignore[reportArgumentType]
    }


def _in_order(unet: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules in the order of the forward pass; U-Nets register their middle after their end."""
    yield from sorted(unet.named_modules(), key=lambda pair: STAGES.get(pair[0].split(".")[0], -1))
