"""One or two CLIP text encoders, and which of their tensors the denoiser reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from concept_probe.families.text.conditioning import Conditioning
from concept_probe.families.text.sites import final_norm, path_of, text_layers
from concept_probe.families.text.tokens import Tokens, tokenise
from concept_probe.types import Branch, Moment, Prompt, Site

if TYPE_CHECKING:
    from concept_probe.families.subject import Subject


@dataclass(frozen=True)
class TextEncoders:
    """The text side of a pipeline."""

    encoders: Mapping[str, nn.Module]
    """Component name to encoder, in the order in which their states are joined."""
    tokenizers: Mapping[str, Any]
    """Component name to tokenizer."""
    reads: Mapping[str, str]
    """Component name to the path of the module whose output the denoiser reads."""
    pooling: str | None
    """The component whose pooled embedding the denoiser reads too."""

    @classmethod
    def of(cls, pipeline: Any) -> TextEncoders:
        """Stable Diffusion reads one encoder's final norm; SDXL the last layer but one of two, and a projection."""
        if getattr(pipeline, "text_encoder_2", None) is None:
            encoder = pipeline.text_encoder
            return cls(
                {"text_encoder": encoder},
                {"text_encoder": pipeline.tokenizer},
                {"text_encoder": final_norm(encoder)},
                None,
            )
        encoders = {"text_encoder": pipeline.text_encoder, "text_encoder_2": pipeline.text_encoder_2}
        tokenizers = {"text_encoder": pipeline.tokenizer, "text_encoder_2": pipeline.tokenizer_2}
        return cls(encoders, tokenizers, {c: _last_but_one(e) for c, e in encoders.items()}, "text_encoder_2")

    def tokenise(self, prompts: Sequence[Prompt]) -> Tokens:
        each = [tokenise(tokenizer, prompts) for tokenizer in self.tokenizers.values()]
        ids, kinds, masks = zip(*each, strict=True)
        return Tokens(ids, kinds, masks)

    def encode(
        self,
        subject: Subject,
        prompts: Sequence[Prompt],
        rows: Sequence[int],
        branch: Branch = "cond",
        *,
        batch: int = 64,
    ) -> Conditioning:
        """Prompts through every encoder, `batch` at a time; `rows` are their numbers in a moment, all of one branch."""
        if not prompts:
            raise ValueError("there is no prompt to encode")
        parts = []
        for start in range(0, len(prompts), batch):
            part = prompts[start : start + batch]
            parts.append(self._batch(subject, part, Moment(tuple(rows[start : start + batch]), (branch,) * len(part))))
        pooled = None if parts[0].pooled is None else torch.cat([p.pooled for p in parts])
        return Conditioning(torch.cat([p.states for p in parts]), pooled, torch.cat([p.kinds for p in parts]))

    def distinct(self, subject: Subject, prompts: Sequence[Prompt]) -> tuple[Conditioning, Tensor]:
        """Each distinct prompt encoded once, numbered by its first place, and per asked prompt its row there."""
        first: dict[Prompt, int] = {}
        for i, prompt in enumerate(prompts):
            first.setdefault(prompt, i)
        place = {prompt: row for row, prompt in enumerate(first)}
        index = torch.tensor([place[p] for p in prompts], device=subject.device)
        return self.encode(subject, list(first), list(first.values())), index

    def _batch(self, subject: Subject, prompts: Sequence[Prompt], moment: Moment) -> Conditioning:
        tokens = self.tokenise(prompts)
        states, pooled = [], None
        for i, component in enumerate(self.encoders):
            state, pool = self._run(subject, component, tokens, i, moment)
            states.append(state)
            pooled = pool if component == self.pooling else pooled
        joined = torch.cat(states, dim=-1) if len(states) > 1 else states[0]
        return Conditioning(joined, pooled, tokens.kinds.to(joined.device))

    def run_to(self, subject: Subject, sites: Sequence[Site], prompts: Sequence[Prompt], moment: Moment) -> None:
        """One batch through those encoders that have `sites`, each left after its last one."""
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
