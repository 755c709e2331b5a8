"""The words of the project as types: frozen, small, and free of every library but torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

Split = Literal["fit", "select", "test"]
Kind = Literal["target", "paraphrases", "implicit", "neighbours", "anchor", "unrelated"]
Branch = Literal["cond", "uncond"]
SPLITS: tuple[Split, ...] = ("fit", "select", "test")
KINDS: tuple[Kind, ...] = ("target", "paraphrases", "implicit", "neighbours", "anchor", "unrelated")
TOKEN_KINDS = ("bos", "content", "subject", "eos", "pad")
BRANCHES: tuple[Branch, ...] = ("cond", "uncond")


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
    side: Literal["in", "out", "weight"] = "out"
    item: int | None = None
    """Which element of a tuple output (`out`), or which column of a weight (d_out, d_in) (`weight`)."""

    def __str__(self) -> str:
        return f"{self.component}/{self.path}:{self.side}" + ("" if self.item is None else f"[{self.item}]")

    @classmethod
    def parse(cls, address: str) -> Site:
        component, slash, rest = address.partition("/")
        path, colon, tail = rest.rpartition(":")
        side, bracket, item = tail.partition("[")
        if not (component and slash and path and colon) or side not in ("in", "out", "weight"):
            raise ValueError(
                f"site {address!r} is not of the form component/path:in|out|weight, optionally with [item]"
            )
        if bracket and not (item.endswith("]") and item[:-1].isdigit()):
            raise ValueError(f"site {address!r} ends in {bracket + item!r}, which is not [item] with a whole number")
        return cls(component, path, side, int(item[:-1]) if bracket else None)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Prompt:
    """A text, the part of it that names what it shows, and the label a recogniser should give."""

    text: str
    subject: str | None = None
    """The words of `text` that name the subject; None where nothing is named."""
    label: str | None = None
    """What a right answer shows; None where no label is right."""


@dataclass(frozen=True)
class Query:
    """One thing asked of a subject: a prompt, and the seed of its noise."""

    prompt: Prompt
    seed: int = 0


@dataclass(frozen=True)
class Splits:
    """Prompts of one kind, kept apart: what is used to fit, to select, and to test."""

    fit: tuple[Prompt, ...] = ()
    select: tuple[Prompt, ...] = ()
    test: tuple[Prompt, ...] = ()

    def __iter__(self) -> Iterator[Prompt]:
        yield from (*self.fit, *self.select, *self.test)


@dataclass(frozen=True)
class Concept:
    """A name and the prompts that do, or must not, have to do with it."""

    name: str
    target: Splits
    paraphrases: Splits = Splits()
    implicit: Splits = Splits()
    neighbours: Splits = Splits()
    anchor: Splits = Splits()
    unrelated: Splits = Splits()
    examples: Tensor | None = field(default=None, compare=False, repr=False)
    """Pictures of the concept, float (n, 3, h, w) in 0..1; attacks that relearn need them."""

    def prompts(self, kind: Kind, split: Split) -> tuple[Prompt, ...]:
        """The prompts of one kind and split."""
        return getattr(getattr(self, kind), split)


@dataclass(frozen=True)
class Moment:
    """When a tensor was seen: which denoising step, and whose rows these are.

    Row i of a tapped tensor's batch axis belongs to prompt `prompts[i]` in guidance branch
    `branches[i]`. Text encoders and anything else outside the denoising loop have `step` None.
    """

    prompts: tuple[int, ...]
    """Per batch row, the index of its prompt in the list that was asked for."""
    branches: tuple[Branch, ...]
    """Per batch row, `cond` (the prompt) or `uncond` (the empty or negative prompt of guidance)."""
    step: int | None = None
    """0 is the first, noisiest step."""
    timestep: int | None = None
    token_kinds: Tensor | None = field(default=None, compare=False, repr=False)
    """Per batch row and text token, an index into TOKEN_KINDS, long (b, t)."""


@dataclass(frozen=True)
class Codes:
    """Sparse codes: for each of n rows the k active features. Padding has value 0."""

    values: Tensor
    """(n, k)"""
    indices: Tensor
    """(n, k), long"""

    def dense(self, width: int) -> Tensor:
        """(n, width), zero where a feature does not fire."""
        out = self.values.new_zeros(*self.values.shape[:-1], width)
        return out.scatter_add(-1, self.indices, self.values)


@runtime_checkable
class Codec(Protocol):
    """What `find` and `erase` ask of a sparse autoencoder."""

    site: Site
    width: int
    """Number of features f."""

    @property
    def decoder(self) -> Tensor:
        """(f, d): row j is the direction that feature j writes, in the units of the activations."""
        ...

    def encode(self, x: Tensor) -> Codes: ...
    def decode(self, codes: Codes) -> Tensor: ...


@dataclass(frozen=True)
class Score:
    """One measured number with its unit, direction, interval and sample size."""

    name: str
    value: float
    low: float
    high: float
    """`low`..`high` is the 95 % interval."""
    n: int
    unit: str = ""
    better: Literal["higher", "lower", "none"] = "none"
    control: float | None = None
    """The same measurement where the answer is known (shuffled labels, random directions)."""

    def __str__(self) -> str:
        control = "" if self.control is None else f", control {self.control:.3g}"
        return (
            f"{self.name} {self.value:.3g} [{self.low:.3g}, {self.high:.3g}] (n {self.n}{control}) {self.unit}".rstrip()
        )


@dataclass(frozen=True)
class Subspace:
    """A basis at a site, in activation space or in parameter space, with the evidence for it."""

    site: Site
    basis: Tensor
    """(d, k)"""
    space: Literal["activation", "parameter"]
    score: Score
    """How strongly it belongs to the concept; `score.control` is the same for a matched random direction."""
    concept: str = ""
    role: str = ""
    mean: Tensor | None = None
    """(d,) the point that an affine projection leaves fixed; None for a linear one."""
    dual: Tensor | None = None
    """(d, k) for an oblique projection x - basis (dualᵀ (x - mean)); None where it equals `basis`."""
    features: tuple[int, ...] = ()
    """For features of a sparse autoencoder: their indices, one per column of `basis`."""
    codec: Codec | None = field(default=None, compare=False, repr=False)
    scores: tuple[Score, ...] = ()
    """One per column of `basis`, where each was judged alone."""

    @property
    def rank(self) -> int:
        return self.basis.shape[1]


EvidenceKind = Literal["behaviour", "representation", "parameters", "features", "recovery"]


@dataclass(frozen=True)
class Finding:
    """One number of an audit."""

    evidence: EvidenceKind
    metric: str
    split: str
    """Which prompts or site it was measured on."""
    before: float
    after: float
    control: float | None
    """The never-taught value, or that of control concepts; `control_name` says which."""
    low: float
    high: float
    """95 % interval of `after`."""
    n: int
    better: Literal["higher", "lower", "none"] = "none"
    index: Score | None = None
    """(after - control) / (before - control) where that is defined: 1 is intact, 0 is never taught."""
    control_name: str = ""
    unit: str = ""
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """A quantity against a budget, for the erased subject and for its control."""

    name: str
    x_name: str
    y_name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    control: tuple[float, ...] = ()
    control_name: str = ""


VerdictName = Literal["intact", "suppressed", "erased", "damaged", "undecided"]


@dataclass(frozen=True)
class Verdict:
    name: VerdictName
    reasons: tuple[str, ...]
    """One sentence each."""
    residual: Score | None = None
    """The largest index over the kinds of evidence, with its interval."""
    calibrated: bool = False
    samples_needed: int | None = None


@dataclass(frozen=True)
class Picture:
    """One generated image of a report: what was asked, what the recogniser saw."""

    name: str
    """`before`, `after`, `control` or the name of an attack."""
    prompt: str
    kind: str
    seed: int
    seen: str
    png: bytes = field(repr=False)


@dataclass(frozen=True)
class TraceMap:
    """A site x step (or site x 1) table of one measurement, before and after."""

    name: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    before: tuple[tuple[float, ...], ...]
    after: tuple[tuple[float, ...], ...]
    control: tuple[tuple[float, ...], ...] = ()
    unit: str = ""


@dataclass(frozen=True)
class Report:
    """Findings, verdict and provenance of one audit."""

    subject: str
    concept: str
    erasure: str
    verdict: Verdict
    findings: tuple[Finding, ...]
    indices: Mapping[str, Score]
    """Per kind of evidence, its index with a bootstrap interval."""
    curves: tuple[Curve, ...] = ()
    traces: tuple[TraceMap, ...] = ()
    pictures: tuple[Picture, ...] = ()
    not_measured: tuple[str, ...] = ()
    """One sentence each: what was left out and why."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Subject and edit hashes, seeds, library versions, command to reproduce, seconds per stage."""

    def show(self) -> object:
        """Render in a notebook (an object with `_repr_html_`)."""
        from concept_probe.report.html import show  # a report is data; its rendering is loaded when asked for

        return show(self)


@dataclass(frozen=True)
class Sampling:
    """How pictures are made from noise."""

    steps: int = 15
    guidance: float = 4.0
    batch: int = 16
    """Largest number of pictures in one pass; changes no result."""


@dataclass(frozen=True)
class Trial:
    """A query, and what a recogniser saw in the answer."""

    query: Query
    seen: str
    """The recogniser's label, or `none`; a recogniser that failed is `error`."""
    probability: float
    """The recogniser's probability of the concept in question (or of `query.prompt.label`)."""


class Recogniser(Protocol):
    """Looks at pictures and names what is in them."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def labels(self) -> tuple[str, ...]:
        """What it can see; the last is `none`."""
        ...

    def probabilities(self, images: Tensor) -> Tensor:
        """images (n, 3, h, w) in 0..1 -> (n, len(labels)), rows sum to 1."""
        ...


def texts(prompts: Sequence[Prompt | str]) -> list[str]:
    """The bare texts of prompts."""
    return [p if isinstance(p, str) else p.text for p in prompts]


def unit(x: Tensor, dim: int = 0) -> Tensor:
    """`x` scaled to norm 1 along `dim`; zero vectors stay zero."""
    return x / torch.linalg.vector_norm(x, dim=dim, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
