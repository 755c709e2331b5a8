"""How much of what patches attend to is the subject of their prompt, where text and image attend to each other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from concept_probe.activations.attention import AttentionCall, LookAtAttention, attending
from concept_probe.types import SUBJECT, Moment

if TYPE_CHECKING:
    from concept_probe.families.diffusion.dit.subject import DitSubject


@contextlib.contextmanager
def attention_to_subjects(subject: DitSubject) -> Iterator[list[Tensor]]:
    """A list that holds, after each pass of the denoiser, that pass's attention to its prompts' subjects, with gradients.

    An entry is one joint attention, (n, patches) in float32: of all that a patch attends to, the share that falls on tokens
    of its prompt's subject, the mean over heads. A prompt that names none has zeros. What is attended to is read where it is
    computed, so norms, rotations and masks count as they do there. ValueError where it is computed by other means than
    torch's `scaled_dot_product_attention`.
    """
    shares: list[Tensor] = []
    keys = {site.path.rpartition(".")[0] for site in subject.sites("joint_text_key")}
    layers = [layer for layer in subject.attentions() if layer.name in keys]

    def looking(first: bool) -> LookAtAttention:
        def look(call: AttentionCall, moment: Moment) -> None:
            if first:
                shares.clear()
            shares.append(_share(subject, call))

        return look

    with attending(subject, {layer: looking(layer == layers[0]) for layer in layers}):
        yield shares


def _share(subject: DitSubject, call: AttentionCall) -> Tensor:
    """What the same attention gives where the value is 1 at tokens of the subject and 0 elsewhere: (n, patches)."""
    value: Tensor = call.options["value"]  # (n, heads, rows, d)
    text, image = (subject.joint_rows(stream) for stream in ("text", "image"))
    named = (subject.condition.kinds == SUBJECT).to(value)
    marks = value.new_zeros(len(value), value.shape[2]).scatter(1, text.index, named)
    # As wide as it was, since not every kernel takes another width; the first of its numbers is the mark.
    marked = torch.cat(
        [
            marks[:, None, :, None].expand(-1, value.shape[1], -1, -1),
            value.new_zeros(*value.shape[:-1], value.shape[-1] - 1),
        ],
        -1,
    )
    seen = F.scaled_dot_product_attention(**{**call.options, "value": marked})[..., 0]
    return seen.float().mean(1).gather(1, image.index)
