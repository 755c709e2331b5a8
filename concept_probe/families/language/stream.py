"""What each block of a language model writes into its residual stream, seen in one pass over a few tokens.

A block's stream comes in as its first tensor and goes out as its output. What attention and the feed-forward write
is what is added in between: their output, or that of the norm that reads it first (Gemma 2 and 3, OLMo 2 and 3),
times one number where the block multiplies what it adds (Granite). The numbers are fitted to the pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from concept_probe.families.language.layout import BlockLayout, LmLayout
from concept_probe.families.language.refused import described, experts_in


@dataclass(frozen=True)
class Write:
    """Where what one part of a block writes into the stream can be seen."""

    path: str
    item: int | None
    """Of the output at `path`, where that is several tensors."""
    norm: str | None
    """Path of the norm between the part and the stream; None where there is none."""
    scale: float
    """What the block multiplies it by before it is added."""


@dataclass(frozen=True)
class BlockWrites:
    """What a block writes, and which item of its output the stream is."""

    item: int | None
    attention: Write
    mlp: Write


@dataclass(frozen=True)
class Call:
    """One call of a module: what it was given first, and what it gave."""

    path: str
    given: Tensor | None
    gave: Any


@dataclass
class Watched:
    """The calls of one pass, in the order in which they ended."""

    calls: dict[str, list[Call]] = field(default_factory=dict)
    order: list[Call] = field(default_factory=list)

    def one(self, path: str, what: str) -> Call:
        """The only call of a module. Raises ValueError for one that is called more often, or never."""
        calls = self.calls.get(path, [])
        if len(calls) != 1:
            raise ValueError(
                f"{what} {path!r} runs {len(calls)} times in one pass, so its sites are not one tensor each"
            )
        return calls[0]


@contextmanager
def watched(model: nn.Module, layout: LmLayout) -> Iterator[Watched]:
    """Note the calls of the blocks, of their parts, of the final norm and of the unembedding."""
    out, handles = Watched(), []
    given: dict[str, list[Tensor | None]] = {}

    def before(path: str) -> Callable[..., None]:
        def hook(_module: Any, args: Any, kwargs: Any) -> None:
            tensors = (_kept(x) for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
            given.setdefault(path, []).append(next(tensors, None))

        return hook

    def after(path: str) -> Callable[..., None]:
        def hook(_module: Any, _args: Any, gave: Any) -> None:
            call = Call(path, given[path].pop(), _kept(gave))
            out.calls.setdefault(path, []).append(call)
            out.order.append(call)

        return hook

    try:
        for path in _watched_paths(model, layout):
            module = model.get_submodule(path)
            handles += [
                module.register_forward_pre_hook(before(path), with_kwargs=True),
                module.register_forward_hook(after(path)),
            ]
        yield out
    finally:
        for handle in handles:
            handle.remove()


def _kept(x: Any) -> Any:
    """A copy of the tensors: what is read of them later may be written over by then."""
    if isinstance(x, tuple | list):
        return tuple(_kept(one) for one in x)
    return x.detach().clone() if isinstance(x, Tensor) else x


def _watched_paths(model: nn.Module, layout: LmLayout) -> Iterator[str]:
    yield from (layout.norm, layout.unembed)
    for block in layout.blocks:
        for path, _ in model.get_submodule(block.block).named_modules():
            whole = f"{block.block}.{path}" if path else block.block
            inside = whole.startswith((f"{block.attention}.", f"{block.mlp}."))
            if not inside or whole == block.down:
                yield whole


def block_writes(model: nn.Module, layout: LmLayout, seen: Watched) -> tuple[BlockWrites, ...]:
    """What each block writes, by the pass that `seen` is of.

    Raises ValueError for a block whose output is not its input and what its two parts write.
    """
    return tuple(_block_writes(model, block, seen) for block in layout.blocks)


def _block_writes(model: nn.Module, block: BlockLayout, seen: Watched) -> BlockWrites:
    module = model.get_submodule(block.block)
    call = seen.one(block.block, "block")
    if call.given is None:
        raise ValueError(f"block {block.block!r} is called without a tensor, so it has no stream")
    item, after = _stream_item(call)
    if call.given.ndim != 3 or after.shape != call.given.shape:
        raise ValueError(
            f"block {block.block!r} ({type(module).__name__}) takes {tuple(call.given.shape)} and gives "
            f"{tuple(after.shape)}; a residual stream is (prompts, tokens, width)"
        )
    parts = [_written(seen, block, path, call.given.shape) for path in (block.attention, block.mlp)]
    (attention, wrote), (mlp, wrote_too) = parts
    factors = _factors(module, block, (call.given, wrote, wrote_too), after)
    return BlockWrites(item, *(Write(*where, scale) for where, scale in zip((attention, mlp), factors, strict=True)))


def _stream_item(call: Call) -> tuple[int | None, Tensor]:
    if isinstance(call.gave, Tensor):
        return None, call.gave
    tensors = [(i, x) for i, x in enumerate(call.gave) if isinstance(x, Tensor)]
    alike = [(i, x) for i, x in tensors if call.given is not None and x.shape == call.given.shape]
    if not alike:
        raise ValueError(f"block {call.path!r} gives no tensor of its stream's shape")
    return (alike[0][0] if len(tensors) > 1 else None), alike[0][1]


def _written(
    seen: Watched, block: BlockLayout, path: str, shape: torch.Size
) -> tuple[tuple[str, int | None, str | None], Tensor]:
    """Where and what a part of a block writes: its output, or that of the last module that changes it alone."""
    call = seen.one(path, "the part")
    item, x = (None, call.gave) if isinstance(call.gave, Tensor) else (0, call.gave[0])
    if not isinstance(x, Tensor) or x.shape != shape:
        told = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"{path!r} gives {told} where the stream has three axes (prompts, tokens, {shape[-1]}), so no prompt's rows can be "
            "told in it"
        )
    norm = None
    rest = seen.order[seen.order.index(call) + 1 :]
    for after in rest:
        outside = not after.path.startswith(f"{block.block}.") or after.path == block.block
        given, gave = after.given, after.gave
        if outside or given is None or not isinstance(gave, Tensor):
            continue
        if given.shape == x.shape and torch.equal(given, x) and gave.shape == shape and not torch.equal(gave, x):
            path, item, norm, x = after.path, None, after.path, gave
    return (path, item, norm), x


def _factors(
    module: nn.Module, block: BlockLayout, given: tuple[Tensor, Tensor, Tensor], after: Tensor
) -> tuple[float, float]:
    """What the block multiplies attention's and the feed-forward's writing by, when it adds them to its stream.

    Fitted by least squares about 1, each number weighed by the size of what it is a sum of, so that rounding counts
    alike everywhere.
    """
    unit = max(torch.finfo(after.dtype).eps, 1e-5)
    terms = [x.detach().double().flatten() for x in given]
    goal = after.detach().double().flatten()
    weight = 1 / (sum(x.abs() for x in terms) + goal.abs()).clamp_min(1e-30)
    design = torch.stack([x * weight for x in terms], 1)
    off = (goal - torch.stack(terms).sum(0)) * weight
    inverse = torch.linalg.pinv(design.mT @ design, hermitian=True)
    change = inverse @ (design.mT @ off)
    miss = float((off - design @ change).square().mean().sqrt())
    if not miss <= unit:
        experts = experts_in(module)
        perhaps = f", perhaps from a mixture of experts at {experts!r}" if experts else ""
        raise ValueError(
            f"block {block.block!r} ({type(module).__name__}) is not its stream and what {block.attention!r} and "
            f"{block.mlp!r} add to it: {miss:.1%} of its output comes from elsewhere{perhaps}. Found in it: {described(module)}"
        )
    slack = (4 * max(miss, 1e-7) * inverse.diagonal().clamp_min(0).sqrt() + 1e-4).tolist()
    kept, *scales = (1 + change).tolist()
    if abs(kept - 1) > slack[0]:
        raise ValueError(
            f"block {block.block!r} ({type(module).__name__}) multiplies its whole stream by {kept:.4g}, so what a block "
            "writes is not what later ones read"
        )
    attention, mlp = (_named(module, s, room) for s, room in zip(scales, slack[1:], strict=True))
    return attention, mlp


def _named(module: nn.Module, factor: float, room: float) -> float:
    """A fitted factor, or the number that it is meant to be: 1, or one that the block keeps."""
    kept = [v for v in vars(module).values() if isinstance(v, float)]
    return next((v for v in (1.0, *kept) if abs(v - factor) <= room), factor)
