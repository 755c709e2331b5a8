"""Roles to sites of a diffusion transformer, from the declarations of its blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from concept_probe.families.diffusion.attentions import AttentionLayer
from concept_probe.families.diffusion.dit.blocks import BlockStreams, block_of
from concept_probe.families.diffusion.dit.joint import Given, Held, Stream
from concept_probe.types import Site

PROJECTIONS = ("query", "key", "value")


@dataclass(frozen=True)
class Place:
    """Where in a module's tensor the rows of a site are."""

    stream: Stream
    held: Held
    """What the tensor holds."""
    item: int | None
    """Which item of the module's output that tensor is."""


@dataclass(frozen=True)
class TransformerSites:
    """The sites of a diffusion transformer, and where each stands."""

    roles: Mapping[str, tuple[Site, ...]]
    places: Mapping[tuple[str, int | None], Place]
    """By path and item of a site."""
    attentions: tuple[AttentionLayer, ...]
    """Those in which the image looks at something, in the order of the forward pass."""


def transformer_sites(
    component: str, transformer: nn.Module, lists: Sequence[tuple[str, Given | None]], embedders: Sequence[str]
) -> TransformerSites:
    """Sites of the blocks in `lists`, paths of module lists in the order of the forward pass, and of `embedders`, paths
    of what brings the text to the width of the stream. A list may be given one stream alone, or both as one sequence; None
    is for blocks that keep the two apart.

    Roles: `block_out` and `block_text_out` (the image and the text stream behind each block), `joint_image_*` and
    `joint_text_*` with query, key, value, out, mlp_hidden and mlp_out, `*_weight` of the projections and `*_mlp_value`;
    `single_image_*`, `single_text_*`, `single_*_weight` and `single_mlp_value` of modules through which both pass as one
    sequence; `refiner_image_*` and `refiner_text_*` of blocks through which one passes before the two meet; `cross_*` as in
    a U-Net where the image attends to a text that stays as it is; `context_embedder`.
    """
    found: dict[str, list[Site]] = {}
    places: dict[tuple[str, int | None], Place] = {}
    attentions: list[AttentionLayer] = []

    def add(role: str, path: str, side: str, item: int | None, place: Place | None) -> None:
        found.setdefault(role, []).append(Site(component, path, side, item))  # pyright: ignore[reportArgumentType]
        if place is not None:
            places[path, item] = place

    for path in embedders:
        add("context_embedder", path, "out", None, Place("text", "own", None))
        if isinstance(transformer.get_submodule(path), nn.Linear):
            add("context_embedder_weight", path, "weight", None, None)
    for path, module, block, held in _blocks(transformer, lists):
        attentions += _attentions(component, path, module, block, held)
        for stream, item, tensor in _behind(module, block, held):
            add(_BEHIND[stream], path, "out", item, tensor)
        own: dict[Stream, Mapping[str, str]] = {"text": block.of_text, "image": block.of_image}
        for stream, paths in own.items():
            for role, inner, side in _inside(module, paths):
                add(f"joint_{stream}_{role}", f"{path}.{inner}", side, None, _alone(stream, side))
        for role, inner, side in _inside(module, block.across):
            looked_at: Stream = "text" if role in ("key", "value") else "image"
            place = None if side == "weight" else Place(looked_at, "own", None)
            add(f"cross_{role}", f"{path}.{inner}", side, None, place)
        for role, inner, side in _inside(module, block.of_both):
            if held == "text" or held == "image":
                add(f"refiner_{held}_{role}", f"{path}.{inner}", side, None, _alone(held, side))
            elif side == "weight":
                add(f"single_{role}", f"{path}.{inner}", side, None, None)
            elif side == "out":
                for stream, item in STREAMS.items():
                    add(f"single_{stream}_{role}", f"{path}.{inner}", side, item, Place(stream, "both", None))
    return TransformerSites({role: tuple(sites) for role, sites in found.items()}, places, tuple(attentions))


STREAMS: Mapping[Stream, int] = {"text": 0, "image": 1}
"""The items by which the sites of a tensor with both streams name them."""
_BEHIND: Mapping[Stream, str] = {"image": "block_out", "text": "block_text_out"}


def _behind(module: nn.Module, block: BlockStreams, held: Given | None) -> Iterator[tuple[Stream, int | None, Place]]:
    """Stream, item of the site and place of what a block gives."""
    if held == "both":
        for stream, item in STREAMS.items():
            yield stream, item, Place(stream, "both", None)
    elif held is not None:
        yield held, None, Place(held, held, None)
    else:
        yield "image", block.image, Place("image", "image", block.image)
        if block.text is not None and not (block.ends and getattr(module, block.ends)):
            yield "text", block.text, Place("text", "text", block.text)


def _attentions(
    component: str, path: str, module: nn.Module, block: BlockStreams, held: Given | None
) -> Iterator[AttentionLayer]:
    """The attentions of a block by which the image looks; a block that is given the text alone has none."""
    for inner, kind, out in block.attends if held != "text" else ():
        if _has(module, inner):
            found = "self" if held == "image" and kind == "joint" else kind
            yield AttentionLayer(
                Site(component, f"{path}.{inner}", "in"), found, Site(component, f"{path}.{out}", "weight")
            )


def _alone(stream: Stream, side: str) -> Place | None:
    return None if side == "weight" else Place(stream, stream, None)


def _blocks(
    transformer: nn.Module, lists: Sequence[tuple[str, Given | None]]
) -> Iterator[tuple[str, nn.Module, BlockStreams, Given | None]]:
    for path, held in lists:
        for i, module in enumerate(transformer.get_submodule(path).children()):
            yield f"{path}.{i}", module, block_of(module), held


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
