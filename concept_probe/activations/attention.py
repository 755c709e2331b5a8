"""Attention as a denoiser computes it, seen where it is computed: norms, rotations, masks and scale count as they do there.

Attentions are computed by one function of torch, whatever their module does before. What is given to it is looked at
while the module runs, and nothing is put in the place of anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.overrides import TorchFunctionMode

from concept_probe.activations.tap import Look, tap
from concept_probe.types import Moment

if TYPE_CHECKING:
    from concept_probe.families import DiffusionSubject
    from concept_probe.families.diffusion.attentions import AttentionLayer

_GIVEN = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
"""What `scaled_dot_product_attention` takes by place."""

_masked: ContextVar[bool] = ContextVar("attention is masked", default=False)
"""The innermost of two that look at one call sees it first."""


@dataclass(frozen=True)
class AttentionCall:
    """What one attention was given, and what it gave; attached to any graph."""

    query: Float[Tensor, "n heads q d"]
    key: Float[Tensor, "n heads k d"]
    value: Float[Tensor, "n heads k d"]
    output: Float[Tensor, "n heads q d"]
    mask: Tensor | None
    """Of bools, False where a key is not looked at, or of numbers that are added before the softmax; (n, heads, q, k), where
    an axis may be 1. None: every key is looked at."""
    scale: float
    options: Mapping[str, Any]
    """All that `scaled_dot_product_attention` was given, by name."""

    @classmethod
    def of(cls, given: Mapping[str, Any], output: Tensor) -> AttentionCall:
        """From the arguments of `scaled_dot_product_attention` and what it returned."""
        query, key, value = given["query"], given["key"], given["value"]
        if query.shape[1] != key.shape[1]:  # groups of queries share keys
            key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
        scale, mask = given.get("scale"), given.get("attn_mask")
        if given.get("is_causal"):
            mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
        mask = None if mask is None else mask[(None,) * (4 - mask.ndim)]
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        return cls(query, key, value, output, mask, float(scale), given)

    def weights(self, rows: slice = slice(None)) -> Float[Tensor, "n heads rows k"]:
        """softmax(q kᵀ scale + mask) of the queries `rows`, in float32 or wider, as fused kernels add up."""
        wide = torch.promote_types(self.query.dtype, torch.float32)
        compared = self.query[:, :, rows].to(wide) @ self.key.to(wide).mT * self.scale
        if self.mask is not None:
            mask = self.mask if self.mask.shape[2] == 1 else self.mask[:, :, rows]
            compared = compared.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else compared + mask
        return compared.softmax(-1)


LookAtAttention = Callable[[AttentionCall, Moment], None]
MaskOfAttention = Callable[[Mapping[str, Any]], Tensor]
"""What `scaled_dot_product_attention` was given, by name -> where it may look."""


@contextmanager
def attending(subject: DiffusionSubject, looks: Mapping[AttentionLayer, LookAtAttention]) -> Iterator[None]:
    """While inside, call `look(call, moment)` whenever one of the layers has computed its attention.

    >>> with attending(subject, {subject.attentions()[0]: lambda call, moment: seen.append(call.weights())}):
    ...     subject.generate(queries)

    Nothing is replaced: pictures stay as they are to the bit. ValueError where a layer computes its attention by other
    means than one call of torch's `scaled_dot_product_attention`, and for one that is linear.
    """
    if _masked.get():
        raise ValueError(
            f"{subject.name}: attention is masked already, and would be seen as it was before; enter `attending` before `masking`"
        )
    with _inside(subject, _Reader(subject.name, looks, {})):
        yield


@contextmanager
def masking(subject: DiffusionSubject, masks: Mapping[AttentionLayer, MaskOfAttention]) -> Iterator[None]:
    """While inside, each of the layers looks only where its mask, bool (n, heads, q, k) with axes of 1 allowed, is True, and
    where it looks anyway. ValueError as by `attending`, which has to be entered before, to see what is left."""
    token = _masked.set(True)
    try:
        with _inside(subject, _Reader(subject.name, dict.fromkeys(masks, lambda call, moment: None), masks)):
            yield
    finally:
        _masked.reset(token)


@contextmanager
def attention_to_text(subject: DiffusionSubject) -> Iterator[list[Tensor]]:
    """A list to which every pass of the denoiser adds its attention to text, layer by layer, with gradients.

    Each entry is (b, heads, patches, t), the weights of one cross-attention. ValueError for a subject whose attention is
    joint.
    """
    if "cross_query" not in subject.roles():
        raise ValueError(
            f"{subject.name}: this takes attention from the image to a text that stays as it is, and in a joint attention text "
            "and image attend to each other"
        )
    maps: list[Tensor] = []
    layers = [layer for layer in subject.attentions() if layer.kind == "cross"]
    with attending(subject, {layer: lambda call, moment: maps.append(call.weights()) for layer in layers}):
        yield maps


@contextmanager
def _inside(subject: DiffusionSubject, reader: _Reader) -> Iterator[None]:
    linear = next((layer for layer in reader.looks if layer.kind == "linear"), None)
    if linear is not None:
        raise ValueError(
            f"{subject.name}: {linear.name!r} is a linear attention, which has no weight for a pair of patches and so no map; "
            "name other layers"
        )
    with ExitStack() as stack:
        stack.enter_context(tap(subject, {layer.site: reader.entering(layer) for layer in reader.looks}))
        for layer in reader.looks:
            stack.callback(subject.module(layer.site).register_forward_hook(reader.leaving(layer)).remove)
        stack.enter_context(reader)
        yield


class _Reader(TorchFunctionMode):
    """Looks at the one attention that is computed while a layer's module runs, and may mask it."""

    def __init__(
        self,
        name: str,
        looks: Mapping[AttentionLayer, LookAtAttention],
        masks: Mapping[AttentionLayer, MaskOfAttention],
    ) -> None:
        super().__init__()
        self.name, self.looks, self.masks = name, looks, masks
        self.inside: tuple[AttentionLayer, Moment] | None = None
        """The layer whose module runs, and when."""
        self.calls: list[AttentionCall] = []

    def entering(self, layer: AttentionLayer) -> Look:
        def look(x: Tensor, moment: Moment) -> None:
            self.inside, self.calls = (layer, moment), []

        return look

    def leaving(self, layer: AttentionLayer) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            if self.inside is None or self.inside[0] != layer:
                return  # it slept
            moment, calls = self.inside[1], self.calls
            self.inside, self.calls = None, []
            if len(calls) != 1:
                raise ValueError(
                    f"{self.name}: the attention at {str(layer.site)!r} was not seen, since its module called torch's "
                    f"scaled_dot_product_attention {len(calls)} times, not once; take back what was set instead of it "
                    "(transformer.set_attention_backend('native'), unet.set_default_attn_processor(), or another attention "
                    "processor)"
                )
            self.looks[layer](calls[0], moment)

        return hook

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func is not F.scaled_dot_product_attention or self.inside is None:
            return func(*args, **given)
        named = dict(zip(_GIVEN, args, strict=False)) | given
        mask = self.masks.get(self.inside[0])
        if mask is None:
            out = func(*args, **given)
        else:
            named["attn_mask"] = _both(named.get("attn_mask"), mask(named))
            out = func(**named)
        self.calls.append(AttentionCall.of(named, out))
        return out


def _both(given: Tensor | None, mask: Tensor) -> Tensor:
    """A mask that looks where both do."""
    if given is None:
        return mask
    given = given[(None,) * (4 - given.ndim)]
    return given & mask if given.dtype == torch.bool else given.masked_fill(~mask, -torch.inf)
