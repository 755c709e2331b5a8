"""One or two CLIP text encoders, and which of their tensors the denoiser reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from concept_probe.families.parts import unwrapped
from concept_probe.families.text.conditioning import Conditioning
from concept_probe.families.text.encoders import TextEncoders
from concept_probe.families.text.sites import final_norm, path_of, text_layers, text_sites
from concept_probe.families.text.tokens import Tokens, tokenise
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

    @classmethod
    def of(cls, pipeline: Any) -> ClipEncoders:
        """Stable Diffusion reads one encoder's final norm; SDXL the last layer but one of two, and a projection. A refiner
        of SDXL has the second of them alone."""
        named = {name: unwrapped(getattr(pipeline, name, None)) for name in TOKENIZERS}
        encoders = {name: encoder for name, encoder in named.items() if encoder is not None}
        tokenizers = {name: getattr(pipeline, TOKENIZERS[name]) for name in encoders}
        pools = "text_encoder_2" in encoders
        reads = {name: _last_but_one(e) if pools else final_norm(e) for name, e in encoders.items()}
        return cls(encoders, tokenizers, reads, "text_encoder_2" if pools else None)

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
                with subject.stop_after(mine):
                    self._run(subject, component, tokens, i, moment)

    def _run(
        self, subject: Subject, component: str, tokens: Tokens, which: int, moment: Moment
    ) -> tuple[Tensor, Tensor | None]:
        encoder = self.encoders[component]
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


def _last_but_one(encoder: nn.Module) -> str:
    path, layers = text_layers(encoder)
    if len(layers) > 1:
        return f"{path}.{len(layers) - 2}"
    embedding = encoder.get_input_embeddings()  # pyright: ignore[reportCallIssue]
    return path_of(encoder, embedding).rpartition(".")[0]
