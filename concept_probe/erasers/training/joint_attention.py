"""How much of what patches attend to is the subject of their prompt, where text and image attend to each other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from concept_probe.activations import tap
from concept_probe.activations.tap import Look
from concept_probe.types import SUBJECT, Moment, Site

if TYPE_CHECKING:
    from concept_probe.families.diffusion.dit.subject import DitSubject

_GIVEN = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
"""What `scaled_dot_product_attention` takes by place."""


@contextlib.contextmanager
def attention_to_subjects(subject: DitSubject) -> Iterator[list[Tensor]]:
    """A list that holds, after each pass of the denoiser, that pass's attention to its prompts' subjects, with gradients.

    An entry is one joint attention, (n, patches) in float32: of all that a patch attends to, the share that falls on tokens
    of its prompt's subject, the mean over heads. A prompt that names none has zeros. What is attended to is read where it is
    computed, so norms, rotations and masks count as they do there. ValueError where it is computed by other means than
    torch's `scaled_dot_product_attention`.
    """
    reader = _Reader(subject)
    with tap(subject, reader.looks(subject.sites("joint_text_key"))), reader:
        yield reader.shares
    reader.refuse_unread()


class _Reader(TorchFunctionMode):
    """Looks at the first attention that is computed after each text key has passed."""

    def __init__(self, subject: DitSubject) -> None:
        super().__init__()
        self.subject = subject
        self.shares: list[Tensor] = []
        self.awaited: Site | None = None
        """Whose attention comes next."""

    def looks(self, keys: Sequence[Site]) -> dict[Site, Look]:
        return {key: self._announcing(key, first=key == keys[0]) for key in keys}

    def _announcing(self, key: Site, first: bool) -> Look:
        def look(x: Tensor, moment: Moment) -> None:
            self.refuse_unread()
            if first:
                self.shares.clear()
            self.awaited = key

        return look

    def refuse_unread(self) -> None:
        """Raise ValueError where a text key has passed and no attention was seen to be computed of it."""
        if self.awaited is not None:
            raise ValueError(
                f"{self.subject.name}: the attention of the key at {str(self.awaited)!r} was not seen, since it is computed by "
                "other means than torch's scaled_dot_product_attention; take back what was set instead of it "
                "(transformer.set_attention_backend('native'), or another attention processor)"
            )

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        out = func(*args, **given)
        if func is F.scaled_dot_product_attention and self.awaited is not None:
            self.awaited = None
            self.shares.append(self._share(dict(zip(_GIVEN, args, strict=False)) | given))
        return out

    def _share(self, given: dict[str, Any]) -> Tensor:
        """What the same attention gives where the value is 1 at tokens of the subject and 0 elsewhere: (n, patches)."""
        value: Tensor = given["value"]  # (n, heads, rows, d)
        text, image = (self.subject.joint_rows(stream) for stream in ("text", "image"))
        named = (self.subject.condition.kinds == SUBJECT).to(value)
        marks = value.new_zeros(len(value), value.shape[2]).scatter(1, text.index, named)
        # As wide as it was, since not every kernel takes another width; the first of its numbers is the mark.
        marked = torch.cat(
            [
                marks[:, None, :, None].expand(-1, value.shape[1], -1, -1),
                value.new_zeros(*value.shape[:-1], value.shape[-1] - 1),
            ],
            -1,
        )
        seen = F.scaled_dot_product_attention(**{**given, "value": marked})[..., 0]
        return seen.float().mean(1).gather(1, image.index)
