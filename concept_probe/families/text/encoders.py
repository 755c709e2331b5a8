"""What every text side of a pipeline promises: prompts in, conditions out."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn

from concept_probe.families.text.conditioning import Conditioning
from concept_probe.families.text.tokens import Tokens
from concept_probe.types import Branch, Moment, Prompt, Site

if TYPE_CHECKING:
    from concept_probe.families.subject import Subject


class TextEncoders(abc.ABC):
    """The text encoders of a pipeline, and which of their tensors the denoiser reads."""

    encoders: Mapping[str, nn.Module]
    """Component name to encoder, in the order in which they run."""
    tokenizers: Mapping[str, Any]
    """Component name to tokenizer."""

    @abc.abstractmethod
    def sites(self) -> dict[str, tuple[Site, ...]]:
        """Roles to sites of all of them."""

    @abc.abstractmethod
    def tokenise(self, prompts: Sequence[Prompt]) -> Tokens:
        """Token ids and kinds, once for each encoder.

        Raises ValueError for a subject that is not in its text or that lies behind the last token read.
        """

    @abc.abstractmethod
    def read(self, subject: Subject, prompts: Sequence[Prompt], moment: Moment) -> Conditioning:
        """One batch through every encoder."""

    @abc.abstractmethod
    def run_to(self, subject: Subject, sites: Sequence[Site], prompts: Sequence[Prompt], moment: Moment) -> None:
        """One batch through those encoders that have `sites`, each left after its last one."""

    @final
    def encode(
        self, subject: Subject, prompts: Sequence[Prompt], rows: Sequence[int], branch: Branch = "cond", *,
        batch: int = 64,
    ) -> Conditioning:  # fmt: skip
        """Prompts through every encoder, `batch` at a time; `rows` are their numbers in a moment, all of one branch.

        Where a pass of the subject is under way, whoever acts in it has asked: the moment is `nested`.
        """
        if not prompts:
            raise ValueError("there is no prompt to encode")
        parts = []
        for start in range(0, len(prompts), batch):
            part = prompts[start : start + batch]
            inside = subject.state.moment is not None
            moment = Moment(tuple(rows[start : start + batch]), (branch,) * len(part), nested=inside)
            parts.append(self.read(subject, part, moment))
        return Conditioning.joined(parts)

    @final
    def distinct(self, subject: Subject, prompts: Sequence[Prompt]) -> tuple[Conditioning, Tensor]:
        """Each distinct prompt encoded once, numbered by its first place, and per asked prompt its row there."""
        first: dict[Prompt, int] = {}
        for i, prompt in enumerate(prompts):
            first.setdefault(prompt, i)
        place = {prompt: row for row, prompt in enumerate(first)}
        index = torch.tensor([place[p] for p in prompts], device=subject.device)
        return self.encode(subject, list(first), list(first.values())), index
