"""Text encoders whose states a diffusion transformer reads as one sequence: CLIP, T5, and language models.

One `StateReader` says for one encoder how prompts are spelled and which of its tensors are read; a pipeline's kind says how
what they read is joined. Which module that is decides, not what a library calls hidden states: those are collected by
hooks of its own, which may run before a tap has replaced the tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from concept_probe.families.text.conditioning import Conditioning
from concept_probe.families.text.encoders import TextEncoders
from concept_probe.families.text.layers import encoder_sites
from concept_probe.families.text.spelling import Spelling
from concept_probe.families.text.tokens import Tokens, refuse_unembedded
from concept_probe.types import Moment, Prompt, Site

if TYPE_CHECKING:
    from concept_probe.families.subject import Subject


@dataclass(frozen=True)
class StateReader:
    """One text encoder: what it is given, and what is read of it."""

    component: str
    encoder: nn.Module
    spelling: Spelling
    reads: tuple[str, ...]
    """Paths of the modules whose outputs are read, side by side along d."""
    masked: bool = False
    """Whether its attention is told which positions only fill up."""
    without: Spelling | None = None
    """How the empty prompt of guidance is spelled, where that differs."""
    pooled: Callable[[Any], Tensor] | None = None
    """The pooled embedding (n, d) in what the encoder returns, where it is read."""
    backbone: str = ""
    """Path of the part that is run; the part behind it, a language model's head, makes nothing that is read."""

    def spell(self, prompts: Sequence[Prompt], null: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, kinds and padding mask, each long (n, t)."""
        return (self.without if null and self.without is not None else self.spelling)(prompts)


@dataclass(frozen=True)
class Read:
    """What one encoder made of prompts."""

    states: Tensor
    """(n, t, d)"""
    kinds: Tensor
    """(n, t) long"""
    mask: Tensor
    """(n, t) bool, False where positions only fill up"""
    pooled: Tensor | None


Join = Callable[[Sequence[Read], bool], Conditioning]
"""What each encoder read, and whether it was the empty prompt of guidance -> what the denoiser reads."""


def masked_states(read: Sequence[Read], null: bool) -> Conditioning:
    """The states of one encoder, of which those that only fill up are not looked at."""
    return Conditioning(read[0].states, None, read[0].kinds, mask=read[0].mask)


def states_alone(read: Sequence[Read], null: bool) -> Conditioning:
    """The states of one encoder, all of which are looked at, those that only fill up too."""
    return Conditioning(read[0].states, None, read[0].kinds)


@dataclass(frozen=True)
class SequenceEncoders(TextEncoders):
    """Any number of text encoders, read as their pipeline says."""

    readers: tuple[StateReader, ...]
    join: Join
    of_tokens: tuple[int, ...] = (0,)
    """The numbers of the readers whose states are read one after another along t."""

    @property
    def encoders(self) -> Mapping[str, nn.Module]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return {reader.component: reader.encoder for reader in self.readers}

    @property
    def tokenizers(self) -> Mapping[str, Any]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return {reader.component: reader.spelling.tokenizer for reader in self.readers}

    def sites(self) -> dict[str, tuple[Site, ...]]:
        roles: dict[str, tuple[Site, ...]] = {}
        for reader in self.readers:
            own = encoder_sites(reader.component, reader.encoder, reads=reader.reads)
            for role, sites in own.items():
                roles[role] = roles.get(role, ()) + sites
        return roles

    def tokenise(self, prompts: Sequence[Prompt]) -> Tokens:
        ids, kinds, masks = zip(*(reader.spell(prompts) for reader in self.readers), strict=True)
        return Tokens(ids, kinds, masks, self.of_tokens)

    def read(self, subject: Subject, prompts: Sequence[Prompt], moment: Moment) -> Conditioning:
        null = bool(moment.branches) and set(moment.branches) == {"uncond"}
        return self.join([self._run(subject, reader, prompts, moment, null) for reader in self.readers], null)

    def run_to(self, subject: Subject, sites: Sequence[Site], prompts: Sequence[Prompt], moment: Moment) -> None:
        for reader in self.readers:
            mine = [s for s in sites if s.component == reader.component]
            if mine:
                with subject.stop_after(mine):
                    self._run(subject, reader, prompts, moment, False)

    def _run(
        self, subject: Subject, reader: StateReader, prompts: Sequence[Prompt], moment: Moment, null: bool
    ) -> Read:
        device = next(reader.encoder.parameters()).device
        ids, kinds, mask = (x.to(device) for x in reader.spell(prompts, null))
        refuse_unembedded(ids, reader.spelling.tokenizer, reader.encoder)
        seen: dict[str, Tensor] = {}

        def see(path: str) -> Callable[..., None]:
            def hook(_module: nn.Module, _args: Any, out: Any) -> None:
                seen[path] = out[0] if isinstance(out, tuple) else out

            return hook

        # Entered now, these hooks run after those of every tap.
        handles = [reader.encoder.get_submodule(path).register_forward_hook(see(path)) for path in reader.reads]
        try:
            with subject.during(replace(moment, token_kinds=kinds)):
                run = reader.encoder.get_submodule(reader.backbone)
                out = run(input_ids=ids, attention_mask=mask if reader.masked else None, **_without_cache(run))
        finally:
            for handle in handles:
                handle.remove()
        states = [seen[path] for path in reader.reads]
        joined = torch.cat(states, -1) if len(states) != 1 else states[0]
        return Read(joined, kinds, mask.bool(), None if reader.pooled is None else reader.pooled(out))


def _without_cache(encoder: nn.Module) -> dict[str, bool]:
    """A language model keeps keys and values for texts that go on, which nothing does here."""
    return {"use_cache": False} if hasattr(getattr(encoder, "config", None), "use_cache") else {}
