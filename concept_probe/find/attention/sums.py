"""Attention of image patches, added up over the tokens of words and of kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from concept_probe.activations.attention import AttentionCall
from concept_probe.find.attention.words import WordPlace
from concept_probe.types import TOKEN_KINDS

if TYPE_CHECKING:
    from concept_probe.families import DiffusionSubject
    from concept_probe.families.diffusion.attentions import AttentionLayer

ATTENDED = (*TOKEN_KINDS, "image", "other")
"""What all that a patch attends to is parted into: tokens by kind, patches, and rows that are neither (registers, filling)."""
WEIGHTS_AT_ONCE = 2**24
"""Weights held at one time."""
MapMeasure = Literal["share", "value"]


@dataclass(frozen=True)
class AttendedRows:
    """Where tokens and patches stand among the keys of one attention, and patches among its queries."""

    text: Int[Tensor, "n t"] | None
    """-1 where a token has no row."""
    image_keys: Int[Tensor, "n p"] | None
    queries: Int[Tensor, "n p"]

    @classmethod
    def of(cls, subject: DiffusionSubject, layer: AttentionLayer, query: Tensor, key: Tensor) -> AttendedRows:
        """For the pass under way, of an attention with these queries and keys (n, heads, rows, d)."""
        n, device = len(query), query.device
        if layer.kind == "joint":
            joint = cast(Any, subject)
            text, image = (joint.joint_rows(stream) for stream in ("text", "image"))
            tokens = text.index if text.there is None else text.index.masked_fill(~text.there, -1)
            return cls(tokens.to(device), image.index.to(device), image.index.to(device))
        rows = torch.arange(query.shape[2], device=device).expand(n, -1)
        if layer.kind == "cross":
            return cls(torch.arange(key.shape[2], device=device).expand(n, -1), None, rows)
        patches = rows[:, : patch_count(subject, query.shape[2])]  # the first; what fills up comes behind
        return cls(None, patches, patches)


def columns_at(columns: AttendedRows, batch: Tensor) -> AttendedRows:
    """Those of the rows `batch` (m,)."""
    text, image = (None if x is None else x[batch] for x in (columns.text, columns.image_keys))
    return AttendedRows(text, image, columns.queries[batch])


def grid_of(subject: DiffusionSubject, patches: int) -> tuple[int, int]:
    """Rows and columns of so many patches: the latents' own, or halved as often as it takes.

    ValueError where no halving gives so many.
    """
    height, width = subject.latent_shape[-2:]
    h, w = height, width
    while h * w > patches and h * w > 1:
        h, w = -(-h // 2), -(-w // 2)
    if h * w != patches:
        raise ValueError(
            f"{subject.name}: an attention has {patches} patches, and latents of {height} x {width} halved any number of times "
            "have not, so nobody knows where a patch is; name other layers"
        )
    return h, w


def patch_count(subject: DiffusionSubject, rows: int) -> int:
    """How many of the rows of an attention of the image to itself are patches: those of the largest grid that fits."""
    h, w = subject.latent_shape[-2:]
    while h * w > rows:
        h, w = -(-h // 2), -(-w // 2)
    return h * w


def narrowed(call: AttentionCall, batch: Tensor, queries: Int[Tensor, "n q"]) -> AttentionCall:
    """The rows `batch` (m,) of a call, and of each of them the queries that its row of `queries` names."""
    index = queries[batch]

    def rows(x: Tensor) -> Tensor:
        return x if x.shape[0] == 1 else x[batch]

    mask = call.mask
    if mask is not None:
        mask = rows(mask)
        if mask.shape[2] != 1:
            mask = torch.take_along_dim(mask, index[:, None, :, None], 2)
    query, output = (torch.take_along_dim(x[batch], index[:, None, :, None], 2) for x in (call.query, call.output))
    return replace(call, query=query, key=call.key[batch], value=call.value[batch], output=output, mask=mask)


def value_norms(call: AttentionCall, out: Float[Tensor, "d_out d_in"]) -> Float[Tensor, "n heads k"]:
    """‖W_o V_t‖ of each head and key, W_o the head's columns of the matrix that follows."""
    heads, d = call.value.shape[1], call.value.shape[3]
    wide = torch.promote_types(call.value.dtype, torch.float32)
    of_head = rearrange(out[:, : heads * d].to(wide), "o (h d) -> h o d", h=heads)
    return torch.linalg.vector_norm(call.value.to(wide) @ of_head.mT, dim=-1)


def summed(
    call: AttentionCall, columns: AttendedRows, kinds: Tensor | None, words: Sequence[Sequence[WordPlace]],
    norms: Float[Tensor, "n heads k"] | None = None,
) -> list[Float[Tensor, "sums heads p"]]:  # fmt: skip
    """Per row of a narrowed call: the attention of each patch to each of `words`, then to each of `ATTENDED`.

    `columns` and `kinds` (n, t) are of the same rows. With `norms` each weight counts times its token's.
    """
    n, heads, patches, _ = call.query.shape
    marks = _marks(call, columns, kinds)
    step = max(1, WEIGHTS_AT_ONCE // (n * heads * call.key.shape[2]))
    parts: list[list[Tensor]] = [[] for _ in range(n)]
    for start in range(0, patches, step):
        weights = call.weights(slice(start, start + step))
        if norms is not None:
            weights = weights * norms[:, :, None]
        for i in range(n):
            named = [columns.text[i, list(place.tokens)] for place in words[i]] if columns.text is not None else []
            groups = [weights[i, :, :, at].sum(-1) for at in named]
            groups += [weights[i, :, :, marks[i] == number].sum(-1) for number in range(len(ATTENDED))]
            parts[i].append(torch.stack(groups))
    return [torch.cat(part, -1) for part in parts]


def looked_at(
    call: AttentionCall, columns: AttendedRows, norms: Float[Tensor, "n heads k"] | None = None
) -> Float[Tensor, "n points heads p"]:
    """Where each query of a narrowed call looks in the image: its weights at every patch."""
    assert columns.image_keys is not None
    weights = call.weights()
    if norms is not None:
        weights = weights * norms[:, :, None]
    return rearrange(torch.take_along_dim(weights, columns.image_keys[:, None, None], 3), "n h q p -> n q h p")


def _marks(call: AttentionCall, columns: AttendedRows, kinds: Tensor | None) -> Int[Tensor, "n k"]:
    """Which of `ATTENDED` each key belongs to."""
    n, keys = len(call.key), call.key.shape[2]
    marks = torch.full((n, keys), ATTENDED.index("other"), device=call.key.device)
    if columns.text is not None and kinds is not None:
        there = columns.text >= 0
        for i in range(n):
            marks[i, columns.text[i][there[i]]] = kinds[i].to(marks)[there[i]]
    if columns.image_keys is not None:
        marks.scatter_(1, columns.image_keys, ATTENDED.index("image"))
    return marks
