"""A subject that reads prompts through text encoders: what the denoiser gets of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from concept_probe.families.subject import Subject
from concept_probe.families.text.conditioning import Conditioning
from concept_probe.families.text.encoders import TextEncoders
from concept_probe.families.text.tokens import Tokens, prompts_of
from concept_probe.types import Prompt, Site


class PromptedSubject(Subject[Tensor]):
    """The side of a diffusion subject that reads."""

    text: TextEncoders

    def is_text(self, site: Site) -> bool:
        return site.component in self.text.encoders

    def input_of(self, site: Site) -> Site | None:
        """Where the tensor stands that the matrix at `site` (side `weight`) reads of the text: the same site for all that read
        one tensor, and None for the states that `encode` gives.

        Raises ValueError for a matrix that reads no text.
        """
        if site in self.state_readers():
            return None
        raise ValueError(f"{self.name}: the matrix at {str(site)!r} does not read the text's states")

    def state_readers(self) -> tuple[Site, ...]:
        """The weights of the matrices that read what `encode` gives as states, in the order of the forward pass."""
        return ()

    def tokenise(self, prompts: Sequence[Prompt]) -> Tokens:
        """Token ids and kinds (n, t). ValueError for a subject not in its text, or behind the last token read."""
        return self.text.tokenise(prompts_of(prompts))

    def encode(self, prompts: Sequence[Prompt], *, batch: int = 64) -> Conditioning:
        """What the denoiser reads of `prompts`; text encoders run alone. Gradients reach whatever a tap puts in."""
        prompts = prompts_of(prompts)
        return self.text.encode(self, prompts, range(len(prompts)), batch=batch)

    @property
    def _zeroed(self) -> bool:  # whether guidance reads zeros instead of the empty prompt
        return bool(getattr(self.pipeline.config, "force_zeros_for_empty_prompt", False))

    def with_null_text(self, condition: Conditioning, rows: Tensor) -> Conditioning:
        """`condition` with what guidance has for the empty prompt, which `rows`, bool (n,), are the encoding of.

        That is the encoding itself, or zeros where the pipeline was trained so. Gradients reach the others.
        """
        return condition.zeroed(rows) if self._zeroed else condition

    def empty(self, like: Conditioning) -> Conditioning:
        """What guidance has for no prompt (one row): the empty prompt, or zeros where the pipeline was trained so."""
        if not self._zeroed:
            return self.text.encode(self, [Prompt("")], [-1], "uncond")
        pooled = None if like.pooled is None else torch.zeros_like(like.pooled[:1])
        kinds = self.tokenise([Prompt("")]).kinds.to(like.kinds.device)
        return Conditioning(torch.zeros_like(like.states[:1]), pooled, kinds)
