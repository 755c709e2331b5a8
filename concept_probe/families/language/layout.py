"""Where the sites of a causal language model are, found by the build of its modules.

A block is what a list of modules of one class repeats; in it, the feed-forward is the child that acts on one
tensor and leads from the model's width through a hidden width and back, and attention is the other child that
ends in the model's width. Nothing here compares a path or a class with a fixed name.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from transformers.pytorch_utils import Conv1D

from concept_probe.families.text.sites import path_of
from concept_probe.types import Site

NO_NORMS = (nn.Linear, Conv1D, nn.Embedding, nn.Dropout, nn.Identity)


@dataclass(frozen=True)
class BlockLayout:
    """Paths of one block and of its parts, inside the model."""

    block: str
    attention: str
    mlp: str
    down: str
    """The feed-forward's last matrix, (d, h) or stored as (h, d)."""


@dataclass(frozen=True)
class LmLayout:
    """Paths of a language model's parts."""

    embedding: str
    blocks: tuple[BlockLayout, ...]
    norm: str
    """The norm between the last block and the unembedding."""
    unembed: str


def lm_layout(model: nn.Module) -> LmLayout:
    """The parts of a causal language model.

    Raises ValueError naming the part that is missing or built in another way.
    """
    embedding = model.get_input_embeddings()  # pyright: ignore[reportCallIssue]
    head = model.get_output_embeddings()  # pyright: ignore[reportCallIssue]
    kind = type(model).__name__
    if not isinstance(embedding, nn.Embedding) or not isinstance(head, nn.Linear):
        raise ValueError(f"{kind} has no token embedding with a linear unembedding: it is no causal language model")
    width = embedding.embedding_dim
    path, blocks = _block_list(model, width)
    parts = tuple(_block(f"{path}.{i}", block, width) for i, block in enumerate(blocks))
    return LmLayout(path_of(model, embedding), parts, _final_norm(model, path, blocks), path_of(model, head))


def lm_sites(component: str, layout: LmLayout) -> dict[str, tuple[Site, ...]]:
    """Roles to sites."""
    blocks = layout.blocks
    return {
        "token_embedding": (Site(component, layout.embedding),),
        "resid": tuple(Site(component, b.block) for b in blocks),
        "attn_out": tuple(Site(component, b.attention, "out", 0) for b in blocks),
        "mlp_hidden": tuple(Site(component, b.down, "in") for b in blocks),
        "mlp_out": tuple(Site(component, b.mlp) for b in blocks),
        "text_out": (Site(component, layout.norm),),
        "mlp_value": tuple(Site(component, b.down, "weight") for b in blocks),
        "unembed": (Site(component, layout.unembed, "weight"),),
    }


def _block_list(model: nn.Module, width: int) -> tuple[str, list[nn.Module]]:
    """Path and members of the list of blocks: the one whose members have a feed-forward of the model's width."""
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len({type(m) for m in module}) == 1:
            blocks = list(module)
            if all(_mlps(block, width) for block in blocks):
                return path, blocks
    raise ValueError(
        f"{type(model).__name__} has no list of blocks, each with a feed-forward of two or three matrices around "
        f"width {width} (mixtures of experts are built in another way, and are not supported)"
    )


def _block(path: str, block: nn.Module, width: int) -> BlockLayout:
    mlps = _mlps(block, width)
    inside = {name for name, _ in mlps}
    attentions = [
        name
        for name, child in block.named_children()
        if name not in inside and any(shape_of(m)[1] == width for _, m in _matrices(child))
    ]
    if len(mlps) != 1 or len(attentions) != 1:
        raise ValueError(
            f"block {path!r} ({type(block).__name__}) should have one feed-forward and one attention; found "
            f"{[name for name, _ in mlps]} and {attentions}"
        )
    (mlp, down), attention = mlps[0], attentions[0]
    return BlockLayout(path, f"{path}.{attention}", f"{path}.{mlp}", f"{path}.{mlp}.{down}")


def shape_of(matrix: nn.Module) -> tuple[int, int]:
    """(d_in, d_out) of an `nn.Linear` or a `Conv1D`, which keeps its weight the other way round."""
    rows, columns = matrix.weight.shape  # pyright: ignore[reportGeneralTypeIssues, reportAttributeAccessIssue]
    return (int(rows), int(columns)) if isinstance(matrix, Conv1D) else (int(columns), int(rows))


def _matrices(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for path, child in module.named_modules():
        if isinstance(child, nn.Linear | Conv1D):
            yield path, child


def _mlps(block: nn.Module, width: int) -> list[tuple[str, str]]:
    """(child, path of its down projection inside it) of the children that are feed-forwards."""
    found = []
    for name, child in block.named_children():
        matrices = list(_matrices(child))
        if len(matrices) not in (2, 3) or not _takes_one_tensor(child):
            continue
        # With a hidden width equal to the model's, only the order of registration tells up from down.
        path, down = matrices[-1]
        hidden, out = shape_of(down)
        ups = [shape_of(m) for _, m in matrices[:-1]]
        if out == width and all(a == width and b in (hidden, 2 * hidden) for a, b in ups):
            found.append((name, path))
    return found


def _takes_one_tensor(module: nn.Module) -> bool:
    """Whether a module is called with one tensor, as a feed-forward is; attention also gets masks or positions."""
    parameters = inspect.signature(module.forward).parameters.values()
    return sum(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters) == 1


def _final_norm(model: nn.Module, path: str, blocks: list[nn.Module]) -> str:
    """Path of the last module outside the blocks that is of a class that the blocks use as norms."""
    norms = {
        type(child) for child in blocks[0].children() if not list(child.children()) and not isinstance(child, NO_NORMS)
    }
    outside = [p for p, m in model.named_modules() if type(m) in norms and not p.startswith(f"{path}.")]
    if not outside:
        raise ValueError(f"{type(model).__name__} has no norm outside its blocks, before the unembedding")
    return outside[-1]
