"""One or two CLIP text encoders, and which of their tensors the denoiser reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from concept_probe.families.parts import unwrapped
from concept_probe.families.text.conditioning import Conditioning
from concept_probe.families.text.encoders import TextEncoders
from concept_probe.families.text.sites import final_norm, path_of, text_layers, text_sites
from concept_probe.families.text.tokens import Tokens, refuse_unembedded, tokenise
from concept_probe.types import Moment, Prompt, Site

if TYPE_CHECKING:
    from concept_probe.families.subject import Subject


TOKENIZERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
"""Component of a pipeline that is a text encoder, to that which spells for it."""


@dataclass(frozen=True)
class ClipEncoders(TextEncoders):
    """One or two CLIP text encoders, their states side by side."""

    encoders: Mapping[str, nn.Module]
    """Component name to encoder, in the order in which their states are joined."""
    tokenizers: Mapping[str, Any]
    """Component name to tokenizer."""
    reads: Mapping[str, str]
    """Component name to the path of the module whose output the denoiser reads."""
    pooling: str | None
    """The component whose pooled embedding the denoiser reads too."""
    skips: Mapping[str, str] = field(default_factory=dict)
    """Component name to the path of the layer whose output stands in the place of the last one's, where layers are left
    out between it and the module that is read; not for the empty prompt, which guidance reads whole."""

    @classmethod
    def of(cls, pipeline: Any, clip_skip: int = 0) -> ClipEncoders:
        """Stable Diffusion reads one encoder's final norm; SDXL the last layer but one of two, and a projection. A refiner
        of SDXL has the second of them alone.

        `clip_skip` layers more than usual are left out at the end, as pipelines of diffusers count them. Raises ValueError
        where an encoder has no more layers than that.
        """
        named = {name: unwrapped(getattr(pipeline, name, None)) for name in TOKENIZERS}
        encoders = {name: encoder for name, encoder in named.items() if encoder is not None}
        tokenizers = {name: getattr(pipeline, TOKENIZERS[name]) for name in encoders}
        pools = "text_encoder_2" in encoders
        for name, encoder in encoders.items():
            _refuse_skip(name, encoder, clip_skip + pools)
        reads = {name: _before_last(e, 1 + clip_skip) if pools else final_norm(e) for name, e in encoders.items()}
        skips = {} if pools or not clip_skip else {name: _before_last(e, clip_skip) for name, e in encoders.items()}
        return cls(encoders, tokenizers, reads, "text_encoder_2" if pools else None, skips)

    def sites(self) -> dict[str, tuple[Site, ...]]:
        roles: dict[str, tuple[Site, ...]] = {}
        for component, encoder in self.encoders.items():
            reads, pools = self.reads[component], component == self.pooling
            for role, sites in text_sites(component, encoder, reads=reads, pools=pools).items():
                roles[role] = roles.get(role, ()) + sites
        return roles

    def tokenise(self, prompts: Sequence[Prompt]) -> Tokens:
        each = [tokenise(tokenizer, prompts) for tokenizer in self.tokenizers.values()]
        ids, kinds, masks = zip(*each, strict=True)
        return Tokens(ids, kinds, masks)

    def read(self, subject: Subject, prompts: Sequence[Prompt], moment: Moment) -> Conditioning:
        tokens = self.tokenise(prompts)
        states, pooled = [], None
        for i, component in enumerate(self.encoders):
            with self._skipping(component, prompts):
                state, pool = self._run(subject, component, tokens, i, moment)
            states.append(state)
            pooled = pool if component == self.pooling else pooled
        joined = torch.cat(states, dim=-1) if len(states) > 1 else states[0]
        return Conditioning(joined, pooled, tokens.kinds.to(joined.device))

    def run_to(self, subject: Subject, sites: Sequence[Site], prompts: Sequence[Prompt], moment: Moment) -> None:
        tokens = self.tokenise(prompts)
        for i, component in enumerate(self.encoders):
            mine = [s for s in sites if s.component == component]
            if mine:
                with subject.stop_after(mine), self._skipping(component, prompts):
                    self._run(subject, component, tokens, i, moment)

    @contextmanager
    def _skipping(self, component: str, prompts: Sequence[Prompt]) -> Iterator[None]:
        """Inside, what is read is made of an earlier layer's output, taps included, where layers are left out."""
        if component not in self.skips:
            yield
            return
        encoder, seen = self.encoders[component], []
        layer, reader = encoder.get_submodule(self.skips[component]), encoder.get_submodule(self.reads[component])
        whole = torch.tensor([not prompt.text for prompt in prompts], device=next(encoder.parameters()).device)
        handles = (
            layer.register_forward_hook(lambda _m, _i, out: seen.append(out[0] if isinstance(out, tuple) else out)),
            reader.register_forward_pre_hook(lambda _m, i: (torch.where(whole[:, None, None], i[0], seen[-1]),)),
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _run(
        self, subject: Subject, component: str, tokens: Tokens, which: int, moment: Moment
    ) -> tuple[Tensor, Tensor | None]:
        encoder = self.encoders[component]
        refuse_unembedded(tokens.ids[which], self.tokenizers[component], encoder)
        device = next(encoder.parameters()).device
        mask = None
        if getattr(encoder.config, "use_attention_mask", False):
            mask = tokens.masks[which].to(device)
        seen: list[Any] = []
        # The library collects hidden states with hooks of its own, which may run before a tap has replaced
        # the tensor; a hook entered now runs after every tap.
        reader = encoder.get_submodule(self.reads[component])
        handle = reader.register_forward_hook(
            lambda _m, _i, out: seen.append(out[0] if isinstance(out, tuple) else out)
        )
        try:
            with subject.during(replace(moment, token_kinds=tokens.kinds_of[which].to(device))):
                out = encoder(tokens.ids[which].to(device), attention_mask=mask)
        finally:
            handle.remove()
        return seen[-1], out[0] if component == self.pooling else None


def _refuse_skip(name: str, encoder: nn.Module, left_out: int) -> None:
    """Raise ValueError where leaving out so many layers leaves none; one layer may be left out of one, for SDXL's sake."""
    count = len(text_layers(encoder)[1])
    if left_out >= max(count, 2):
        raise ValueError(
            f"{left_out} layers at the end of {name} were to be left out and it has {count}; give a smaller clip_skip"
        )


def _before_last(encoder: nn.Module, count: int) -> str:
    """The path of the layer `count` before the last; of the embeddings, where there is none."""
    path, layers = text_layers(encoder)
    if len(layers) > count:
        return f"{path}.{len(layers) - 1 - count}"
    embedding = encoder.get_input_embeddings()  # pyright: ignore[reportCallIssue]
    return path_of(encoder, embedding).rpartition(".")[0]
