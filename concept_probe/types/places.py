"""Where and when a tensor is seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from concept_probe.arguments import Natural, check_arguments

Branch = Literal["cond", "uncond"]
BRANCHES: tuple[Branch, ...] = ("cond", "uncond")
TOKEN_KINDS = ("bos", "content", "subject", "eos", "pad")
"""What a token of a prompt is: the mark before it, a word, a word that names the subject, the mark behind it, filling."""
BOS, CONTENT, SUBJECT, EOS, PAD = range(len(TOKEN_KINDS))
"""Indices into TOKEN_KINDS, as tensors of kinds hold them."""


@dataclass(frozen=True, order=True)
class Site:
    """One tensor at one place of a subject.

    >>> str(Site("unet", "up_blocks.1.attentions.1"))
    'unet/up_blocks.1.attentions.1:out'
    >>> Site.parse("text_encoder/encoder.layers.0.mlp.fc2:weight[37]").item
    37
    """

    component: str
    path: str
    side: Literal["in", "out", "change", "weight"] = "out"
    """What goes into a module, what comes out, what it adds (its output minus its input), or its weight."""
    item: Natural | None = None
    """Which element of a tuple output (`out`, `change`), or which column of a weight (`weight`): which input of its matrix
    (d_out, d_in), however the module stores it."""

    def __post_init__(self) -> None:
        check_arguments(self, "site")

    def __str__(self) -> str:
        return f"{self.component}/{self.path}:{self.side}" + ("" if self.item is None else f"[{self.item}]")

    @classmethod
    def parse(cls, address: str) -> Site:
        component, slash, rest = address.partition("/")
        path, colon, tail = rest.rpartition(":")
        side, bracket, item = tail.partition("[")
        if not (component and slash and path and colon) or side not in ("in", "out", "change", "weight"):
            raise ValueError(
                f"site {address!r} is not of the form component/path:in|out|change|weight, optionally with [item]"
            )
        if bracket and not (item.endswith("]") and item[:-1].isdigit()):
            raise ValueError(f"site {address!r} ends in {bracket + item!r}, which is not [item] with a whole number")
        return cls(component, path, side, int(item[:-1]) if bracket else None)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Moment:
    """When a tensor was seen: in which pass of the denoiser, and whose rows these are.

    Row i of a tapped tensor's batch axis belongs to prompt `prompts[i]` in guidance branch
    `branches[i]`. Text encoders, language models that read a prompt, and anything else outside a loop have `step` None.
    """

    prompts: tuple[int, ...]
    """Per batch row, the index of its prompt in the list that was asked for."""
    branches: tuple[Branch, ...]
    """Per batch row, `cond` (the prompt) or `uncond` (the empty or negative prompt of guidance)."""
    step: int | None = None
    """Of pictures, the pass of the denoiser along the trajectory: 0 is the first, noisiest. Schedulers of second order
    take two for a denoising step, see `DiffusionSubject.passes`. Of texts, how many tokens were written before."""
    timestep: float | None = None
    """What the denoiser is told of the noise: a whole number, or, of flow models, 1000 sigma or so."""
    sigma: float | None = None
    """The noise in what the denoiser sees in this pass, as its scheduler counts it: σ = noise / signal, infinite where
    there is no signal; of flow models σ = noise, their time 0..1. None outside a trajectory."""
    timesteps: tuple[float, ...] | None = field(default=None, compare=False, repr=False)
    """The timestep of each pass of the whole trajectory; None outside one."""
    token_kinds: Tensor | None = field(default=None, compare=False, repr=False)
    """Per batch row and text token, an index into TOKEN_KINDS, long (b, t)."""
    places: Tensor | None = field(default=None, compare=False, repr=False)
    """Per batch row and text token, the token's place in its own prompt, long (b, t), and -1 where a position only
    fills the batch and nothing reads it; None where every position is read and stands where it is."""
    nested: bool = False
    """Whether a tap had this pass made inside another, to hear what the model says: what changes predictions, or counts
    the steps of a trajectory, leaves it alone."""

    @property
    def conditional(self) -> list[int]:
        """The rows that are under their own prompts, in their order."""
        return [i for i, branch in enumerate(self.branches) if branch == "cond"]
