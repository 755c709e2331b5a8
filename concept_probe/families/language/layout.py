"""Where the parts of a causal language model are, found by the build of its modules.

A block is what a list of modules repeats; in it, the feed-forward is the child that acts on one tensor and leads
from the model's width through a hidden width and back (or the two matrices that stand in the block itself), and
attention is the other child that ends in the model's width. Nothing here compares a path or a class with a fixed name.
What a block writes is seen by running it: `stream`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from transformers.pytorch_utils import Conv1D

from concept_probe.families.language.refused import described, shape_of, why_no_block
from concept_probe.families.text.sites import path_of
from concept_probe.families.weights import base_of

NO_NORMS = (nn.Linear, Conv1D, nn.Embedding, nn.Dropout, nn.Identity)


@dataclass(frozen=True)
class BlockLayout:
    """Paths of one block and of its parts, inside the model."""

    block: str
    attention: str
    mlp: str
    """The feed-forward; its last matrix, where the matrices stand in the block itself."""
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
    width, near = embedding.embedding_dim, path_of(model, embedding)
    path, blocks = _block_list(model, width, near)
    parts = tuple(_block(f"{path}.{i}", block, width) for i, block in enumerate(blocks))
    return LmLayout(near, parts, _final_norm(model, path, blocks), path_of(model, head))


def _block_list(model: nn.Module, width: int, near: str) -> tuple[str, list[nn.Module]]:
    """Path and members of the list of blocks: the one whose members have a feed-forward of the model's width.

    Of several, as a model that also sees has, the one that stands nearest to the token embedding.
    """
    lists = [(path, list(m)) for path, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m)]
    lists.sort(key=lambda one: -_shared(one[0], near))
    for path, blocks in lists:
        if all(_mlps(block, width) for block in blocks):
            return path, blocks
    if not lists:
        raise ValueError(f"{type(model).__name__} has no list of blocks, so it has no residual stream to read")
    # The blocks are the list that holds the most; a list inside a block is shorter.
    path, blocks = max(lists, key=lambda one: sum(p.numel() for block in one[1] for p in block.parameters()))
    at = next(i for i, block in enumerate(blocks) if not _mlps(block, width))
    raise ValueError(
        f"{type(model).__name__} is not supported: block '{path}.{at}' ({type(blocks[at]).__name__}) "
        f"{why_no_block(blocks[at], width)}. Found in it: {described(blocks[at])}"
    )


def _shared(path: str, near: str) -> int:
    """How many steps two paths go together."""
    pairs = list(zip(path.split("."), near.split("."), strict=False))
    return next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))


def _block(path: str, block: nn.Module, width: int) -> BlockLayout:
    mlps = _mlps(block, width)
    inside = {part.split(".")[0] for mlp, down in mlps for part in (mlp, down)}
    attentions = [
        name
        for name, child in block.named_children()
        if name not in inside and list(child.children()) and any(shape_of(m)[1] == width for _, m in _matrices(child))
    ]
    if len(mlps) != 1 or len(attentions) != 1:
        raise ValueError(
            f"block {path!r} ({type(block).__name__}) should have one feed-forward and one attention, or what mixes "
            f"tokens in its place; found {[name for name, _ in mlps]} and {attentions}. In it are: {described(block)}"
        )
    (mlp, down), attention = mlps[0], attentions[0]
    return BlockLayout(path, f"{path}.{attention}", f"{path}.{mlp}", f"{path}.{down}")


def _matrices(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Matrices with their paths; one with an adapter around it counts as itself, at the path of the whole."""
    inside: set[nn.Module] = set()
    for path, child in module.named_modules():
        base = base_of(child)
        if child not in inside and isinstance(base, nn.Linear | Conv1D):
            inside |= set(child.modules())
            yield path, base


def _mlps(block: nn.Module, width: int) -> list[tuple[str, str]]:
    """(feed-forward, its down projection), paths inside the block, of what in it is a feed-forward."""
    found = []
    for name, child in block.named_children():
        matrices = list(_matrices(child))
        if len(matrices) not in (2, 3) or not _takes_one_tensor(child) or _holds_more(child, matrices):
            continue
        # With a hidden width equal to the model's, only the order of registration tells up from down.
        if _leads_back([m for _, m in matrices], width):
            found.append((name, f"{name}.{matrices[-1][0]}"))
    if found:
        return found
    bare = [(n, base_of(c)) for n, c in block.named_children() if isinstance(base_of(c), nn.Linear | Conv1D)]
    if len(bare) in (2, 3) and _leads_back([m for _, m in bare], width):
        return [(bare[-1][0], bare[-1][0])]
    return []


def _leads_back(matrices: list[nn.Module], width: int) -> bool:
    """Whether the last matrix leads back to the width from where the others, which read it, have led."""
    hidden, out = shape_of(matrices[-1])
    ups = [shape_of(m) for m in matrices[:-1]]
    return out == width and all(a == width and b in (hidden, 2 * hidden) for a, b in ups)


def _holds_more(child: nn.Module, matrices: list[tuple[str, nn.Module]]) -> bool:
    """Whether a child has weights beside its matrices, their adapters and its norms, as the experts of a mixture are."""
    adapters = [m for m in child.modules() if base_of(m) is not m]
    known = {id(p) for m in (*adapters, *(m for _, m in matrices)) for p in m.parameters()}
    return any(p.ndim > 1 and id(p) not in known for p in child.parameters())


def _takes_one_tensor(module: nn.Module) -> bool:
    """Whether a module is called with one tensor, as a feed-forward is; attention also gets masks or positions."""
    parameters = inspect.signature(module.forward).parameters.values()
    return sum(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters) == 1


def _final_norm(model: nn.Module, path: str, blocks: list[nn.Module]) -> str:
    """Path of the last module outside the blocks, nearest to them, that is of a class that the blocks use as norms."""
    norms = {
        type(child) for child in blocks[0].children() if not list(child.children()) and not isinstance(child, NO_NORMS)
    }
    outside = [p for p, m in model.named_modules() if type(m) in norms and not p.startswith(f"{path}.")]
    if not outside:
        raise ValueError(f"{type(model).__name__} has no norm outside its blocks, before the unembedding")
    most = max(_shared(p, path) for p in outside)
    return [p for p in outside if _shared(p, path) == most][-1]
