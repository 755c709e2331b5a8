"""What a language model has to show at the door: that its sites are what their roles say, and padding and memory free.

Three passes over a few tokens: rows side by side, filled up on the left and on the right; then the first tokens, and
the others after them from what was kept. A model that fails is refused with what was found; no list of names decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from concept_probe.families.language.generate import Reader, read_once
from concept_probe.families.language.layout import LmLayout
from concept_probe.families.language.stream import BlockWrites, Watched, block_writes, watched
from concept_probe.families.language.tokens import Batch, Spelled, pad
from concept_probe.families.state import eager
from concept_probe.families.weights import base_of
from concept_probe.types import CONTENT

TOKENS, FIRST = 8, 5
"""Tokens of the longest text that is read, and of those that are filled up or read first."""
LOGIT_ROOM = {torch.float32: 5e-3, torch.float64: 5e-3, torch.float16: 0.05}
"""How far logits may differ, as a share of their spread, and be the same but for rounding; coarser dtypes: 0.15."""

MODEL_ERRORS = (
    TypeError, ValueError, RuntimeError, AttributeError, LookupError, NotImplementedError, AssertionError,
)  # fmt: skip
"""What the code of a model raises where it is asked for what it can't do."""


def written_by(model: nn.Module, layout: LmLayout, tokenizer: Any, fill: int) -> tuple[BlockWrites, ...]:
    """What each block writes into the stream. Raises ValueError as `stream.block_writes` does."""
    with _settled(model):
        _, seen = _side_by_side(model, layout, _ids(model, tokenizer), fill)
    return block_writes(model, layout, _row(seen, 0))


def prove(name: str, model: nn.Module, layout: LmLayout, tokenizer: Any, fill: int) -> tuple[BlockWrites, ...]:
    """As `written_by`, and raise ValueError, saying what was found, for a model of which one of these does not hold:

    - a block's output is its input and what attention and feed-forward write, and the next block's input;
    - the feed-forward's output is that of its last matrix;
    - a token that the final norm and the unembedding score higher has the larger logit;
    - neither what fills up a batch, nor reading a text in two parts, changes what is read.
    """
    try:
        with _settled(model):
            ids = _ids(model, tokenizer)
            logits, seen = _side_by_side(model, layout, ids, fill)
            alone = _row(seen, 0)
            writes = block_writes(model, layout, alone)
            _stream_goes_on(model, layout, alone)
            _last_matrix_gives_the_output(model, layout, alone)
            _logits_follow_the_unembedding(layout, alone, logits[0])
            _padding_is_free(logits)
            _memory_is_free(model, ids, fill, logits[0])
            return writes
    except ValueError as problem:
        raise ValueError(f"{name} ({type(model).__name__}) is not supported: {problem}") from None


@contextmanager
def _settled(model: nn.Module) -> Iterator[None]:
    """No gradients, dropout off, and everything run as it is written, for a while."""
    training = model.training
    try:
        with torch.no_grad(), eager():
            model.eval()
            yield
    finally:
        model.train(training)


def _ids(model: Any, tokenizer: Any) -> list[int]:
    """A few ordinary tokens, spread over the vocabulary."""
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    count = min(len(tokenizer), model.get_input_embeddings().num_embeddings)
    plain = [i for i in range(count) if i not in special] if count < 4096 else None
    if plain is None:  # of a large vocabulary, no more are looked at than are taken
        step = count // (TOKENS + 1)
        plain = [next((i for i in range(k * step, count) if i not in special), 0) for k in range(1, TOKENS + 1)]
    if not plain:
        raise ValueError("its tokenizer has no ordinary token")
    length = getattr(model.config, "max_position_embeddings", None) or TOKENS
    return [plain[k * len(plain) // TOKENS] for k in range(TOKENS)][:length]


def _spelled(ids: list[int]) -> Spelled:
    return Spelled(tuple(ids), (CONTENT,) * len(ids), len(ids))


def _side_by_side(model: Any, layout: LmLayout, ids: list[int], fill: int) -> tuple[Tensor, Watched]:
    """Logits (3, t, v) of the text alone, of its first tokens filled up on the left, and on the right; and the calls."""
    device = model.get_input_embeddings().weight.device
    left, right = (pad([_spelled(ids), _spelled(ids[:FIRST])], fill, side, device) for side in ("left", "right"))
    each = [(getattr(left, k), getattr(right, k)) for k in ("ids", "mask", "kinds", "places")]
    batch = Batch(*(torch.cat([a, b[1:]]) for a, b in each))
    try:
        with watched(model, layout) as seen:
            return read_once(model, batch), seen
    except MODEL_ERRORS as problem:
        raise ValueError(f"a pass over {len(ids)} tokens fails ({type(problem).__name__}: {problem})") from problem


def _row(seen: Watched, row: int) -> Watched:
    """The calls as they were of one row of the batch."""

    def one(x: Any) -> Any:
        if isinstance(x, tuple):
            return tuple(one(y) for y in x)
        return x[row : row + 1] if isinstance(x, Tensor) and x.ndim and len(x) == 3 else x

    out = Watched()
    for call in seen.order:
        cut = type(call)(call.path, one(call.given), one(call.gave))
        out.order.append(cut)
        out.calls.setdefault(call.path, []).append(cut)
    return out


def _off(a: Tensor, b: Tensor) -> float:
    """|a - b| as a share of the spread of b."""
    b = b.double()
    return float((a.double() - b).norm() / (b - b.mean(-1, keepdim=True)).norm().clamp_min(1e-30))


def _room(x: Tensor) -> float:
    return LOGIT_ROOM.get(x.dtype, 0.15)


def _stream_goes_on(model: nn.Module, layout: LmLayout, seen: Watched) -> None:
    calls = [seen.one(block.block, "block") for block in layout.blocks]
    order = [c.path for c in seen.order if c.path in {b.block for b in layout.blocks}]
    if order != [b.block for b in layout.blocks]:
        raise ValueError(f"its blocks run in the order {', '.join(order)}, not in that of their list")
    norm = seen.one(layout.norm, "the final norm")
    for call, after in zip(calls, [*calls[1:], norm], strict=True):
        gave = call.gave if isinstance(call.gave, Tensor) else next(x for x in call.gave if isinstance(x, Tensor))
        given = after.given
        if given is None or given.shape != gave.shape or _off(given, gave) > _room(gave) / 5:
            raise ValueError(
                f"what {call.path!r} gives is not what {after.path!r} reads: something is done to the stream in between"
            )


def _last_matrix_gives_the_output(model: nn.Module, layout: LmLayout, seen: Watched) -> None:
    for block in layout.blocks:
        down, module = seen.one(block.down, "the matrix"), model.get_submodule(block.down)
        whole = seen.one(block.mlp, "the feed-forward").gave
        matrix: Any = module.weight
        bias: Any = module.bias
        if down.given is None or not isinstance(whole, Tensor):
            raise ValueError(f"feed-forward {block.mlp!r} does not give one tensor")
        if base_of(module) is module:
            rows = matrix.mT if isinstance(module, Conv1D) else matrix
            product: Any = functional.linear(down.given.to(rows), rows, bias)
        else:  # an adapter adds to it; what the two give together is what stands here
            product = down.gave
        if product.shape != whole.shape or _off(product, whole) > _room(whole):
            raise ValueError(
                f"what the feed-forward {block.mlp!r} ({type(model.get_submodule(block.mlp)).__name__}) gives is not what "
                f"its last matrix {block.down!r} makes of its input, so the columns of that matrix are not what it writes"
            )


def _logits_follow_the_unembedding(layout: LmLayout, seen: Watched, logits: Tensor) -> None:
    norm, head = seen.one(layout.norm, "the final norm"), seen.one(layout.unembed, "the unembedding")
    if head.given is None or not isinstance(norm.gave, Tensor) or head.given.shape != norm.gave.shape:
        raise ValueError(f"the unembedding {layout.unembed!r} does not read what the final norm {layout.norm!r} gives")
    given, gave = head.given.double(), norm.gave.double()
    factor = (given * gave).sum() / gave.square().sum().clamp_min(1e-30)
    if not factor > 0 or _off(given, factor * gave) > _room(head.given):
        raise ValueError(
            f"between the final norm {layout.norm!r} and the unembedding {layout.unembed!r} something else is done to the "
            "stream"
        )
    scores = head.gave.double()
    rank = scores.argsort(-1)
    sorted_logits = logits.double()[..., : scores.shape[-1]].reshape(scores.shape).gather(-1, rank)
    drop = (sorted_logits.cummax(-1).values - sorted_logits).amax(-1)
    if bool((drop > _room(logits) * sorted_logits.std(-1) + 1e-9).any()):
        raise ValueError("a token that the unembedding scores higher does not always get the larger logit")


def _padding_is_free(logits: Tensor) -> None:
    alone = logits[0, :FIRST]
    count = logits.shape[1]
    for side, row in (("left", logits[1, count - len(alone) :]), ("right", logits[2, : len(alone)])):
        off = _off(row, alone)
        if not off <= _room(logits):
            raise ValueError(
                f"filling a batch up on the {side} changes its logits by {off:.0%} of their spread: tokens that only fill up "
                "get into what it keeps of a text, so answers would depend on what stands beside a prompt"
            )


def _memory_is_free(model: Any, ids: list[int], fill: int, whole: Tensor) -> None:
    """Read in parts, each from what was kept of those before, one row filled up: as `log_probs` and `generate` do."""
    device = model.get_input_embeddings().weight.device
    count = len(ids) - FIRST
    if count < 1:
        return
    begun = pad([_spelled(ids[:1]), _spelled(ids[:FIRST])], fill, "left", device)
    starts = torch.tensor([FIRST, 1], device=device)
    places = starts[:, None] + torch.arange(count, device=device)
    rest, parts = torch.tensor(ids, device=device)[places], []
    try:
        reader = Reader(model, begun.mask)
        reader.read(begun.ids, begun.places)
        reader.choose(torch.tensor([1, 0], device=device))
        for part, at in zip(rest.split(2, dim=1), places.split(2, dim=1), strict=True):  # several tokens, then one
            reader.extend(torch.ones_like(part))
            parts.append(reader.read(part, at))
    except MODEL_ERRORS as problem:
        raise ValueError(
            f"going on from what was kept of a text fails ({type(problem).__name__}: {problem})"
        ) from problem
    read = torch.cat(parts, 1)
    for row, what in enumerate(("a text", "a text that was filled up")):
        off = _off(read[row], whole[places[row]])
        if not off <= _room(whole):
            raise ValueError(
                f"going on from what was kept of {what} gives logits that differ by {off:.0%} of their spread from those of "
                "the text read at once"
            )
