"""Roles to sites of a diffusion transformer, from the declarations of its blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from concept_probe.families.diffusion.dit.blocks import BlockStreams, block_of
from concept_probe.types import Site

PROJECTIONS = ("query", "key", "value")


@dataclass(frozen=True)
class TransformerSites:
    """The sites of a diffusion transformer, and on which axis each stands."""

    roles: Mapping[str, tuple[Site, ...]]
    tokens: frozenset[tuple[str, int | None]]
    """Path and item of what has one row for each token of the text."""
    patches: frozenset[tuple[str, int | None]]
    """Path and item of what has one row for each patch of the image."""


def transformer_sites(
    component: str, transformer: nn.Module, lists: Sequence[str], embedders: Sequence[str]
) -> TransformerSites:
    """Sites of the blocks in `lists`, paths of module lists in the order of the forward pass, and of `embedders`, paths
    of what brings the text to the width of the stream.

    Roles: `block_out` and `block_text_out` (the image and the text stream behind each block), `joint_image_*` and
    `joint_text_*` with query, key, value, mlp_hidden and mlp_out, `*_weight` of the projections and `*_mlp_value`;
    `single_*_weight` and `single_mlp_value` of blocks through which both pass as one sequence; `cross_*` as in a U-Net
    where the image attends to a text that stays as it is; `context_embedder`.
    """
    found: dict[str, list[Site]] = {}
    tokens: set[tuple[str, int | None]] = set()
    patches: set[tuple[str, int | None]] = set()

    def add(role: str, path: str, side: str = "out", item: int | None = None) -> None:
        found.setdefault(role, []).append(Site(component, path, side, item))  # pyright: ignore[reportArgumentType]
        if side != "weight":
            (tokens if role in ON_TOKENS else patches).add((path, item))

    for path in embedders:
        add("context_embedder", path)
        if isinstance(transformer.get_submodule(path), nn.Linear):
            add("context_embedder_weight", path, "weight")
    for path, module, block in _blocks(transformer, lists):
        if not block.both:
            add("block_out", path, item=block.image)
            if block.text is not None and not (block.ends and getattr(module, block.ends)):
                add("block_text_out", path, item=block.text)
        for stream, prefix in ((block.of_text, "joint_text"), (block.of_image, "joint_image"), (block.across, "cross")):
            for role, inner, side in _inside(module, stream):
                add(f"{prefix}_{role}", f"{path}.{inner}", side)
        for role, inner, side in _inside(module, block.of_both):
            if side == "weight":
                add(f"single_{role}", f"{path}.{inner}", side)
    roles = {role: tuple(sites) for role, sites in found.items()}
    return TransformerSites(roles, frozenset(tokens), frozenset(patches))


ON_TOKENS = frozenset(
    {"block_text_out", "context_embedder", "cross_key", "cross_value"}
    | {f"joint_text_{name}" for name in (*PROJECTIONS, "mlp_hidden", "mlp_out")}
)
"""Roles whose tensors have one row for each token of the text."""


def _blocks(transformer: nn.Module, lists: Sequence[str]) -> Iterator[tuple[str, nn.Module, BlockStreams]]:
    for path in lists:
        for i, module in enumerate(transformer.get_submodule(path).children()):
            yield f"{path}.{i}", module, block_of(module)


def _inside(module: nn.Module, paths: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Role, path and side of each tensor that a block has."""
    for name, path in paths.items():
        if not _has(module, path):
            continue
        if name in PROJECTIONS:
            yield name, path, "out"
            yield f"{name}_weight", path, "weight"
        elif name == "mlp_value":
            yield "mlp_hidden", path, "in"
            yield "mlp_value", path, "weight"
        else:
            yield {"mlp": "mlp_out"}.get(name, name), path, "out"


def _has(module: nn.Module, path: str) -> bool:
    try:
        return module.get_submodule(path) is not None
    except AttributeError:
        return False
