"""Where the sites of a conditional U-Net are, found by the shape of its modules.

Nothing here compares a path with a fixed string, except for the order of a U-Net's three stages.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from concept_probe.families.diffusion.attentions import AttentionLayer
from concept_probe.families.text.sites import path_of
from concept_probe.types import Site

STAGES = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}


def cross_attentions(unet: nn.Module) -> list[str]:
    """Paths of the attentions that read the text, from the first to the last."""
    found = [p for p, m in _in_order(unet) if getattr(m, "is_cross_attention", False) and hasattr(m, "to_k")]
    if not found:
        raise ValueError(f"{type(unet).__name__} has no cross-attention with to_k and to_v")
    return found


def unet_attentions(component: str, unet: nn.Module) -> tuple[AttentionLayer, ...]:
    """Every attention of a conditional U-Net, from the first to the last."""
    return tuple(
        AttentionLayer(
            Site(component, path, "in"),
            "cross" if getattr(module, "is_cross_attention", False) else "self",
            Site(component, f"{path}.to_out.0", "weight"),
        )
        for path, module in _in_order(unet)
        if hasattr(module, "to_q") and hasattr(module, "to_k") and hasattr(module, "to_out")
    )


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

    def stage(path: str) -> int:  # its own stages come first in a path, whatever wraps it
        return next((STAGES[name] for name in path.split(".") if name in STAGES), -1)

    yield from sorted(unet.named_modules(), key=lambda pair: stage(pair[0]))
