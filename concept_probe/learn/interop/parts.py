"""What every reader of a format returns: weights in our convention, and the checks that they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from concept_probe.learn.interop.keys import Keys
from concept_probe.learn.row_norm import RowNorm
from concept_probe.learn.sae import Activation, Sae
from concept_probe.types import Site

OURS = frozenset(("site", "scale", "subject", "weight_hash", "prompts", "k"))
"""Names that `made_by` has a meaning for; a published configuration's own of these are kept with `their_` before them."""


@dataclass(frozen=True)
class Parts:
    """Everything an `Sae` is made of; the weights are those that `Sae` takes, whatever the file calls them."""

    activation: Activation
    W_enc: Tensor
    """(d, f), applied to scale x - b_dec."""
    b_enc: Tensor
    """(f,)"""
    W_dec: Tensor
    """(f, d)"""
    b_dec: Tensor
    """(d,)"""
    scale: float = 1.0
    row_norm: RowNorm = "none"
    """One that is not `none` goes with a scale of 1."""
    site: Site | None = None
    """None where the file does not say."""
    hook: str | None = None
    """What the file calls its place in the words of other libraries: `blocks.8.hook_resid_post`, say."""
    layer_of: str | None = None
    """Why the folder's name alone may not say which of a layer's tensors it reads; None where it does."""
    reads: str = "out"
    """`change` for autoencoders of what a block adds to its input."""
    made_by: Mapping[str, object] = field(default_factory=dict)

    def build(self, site: Site | None, where: str) -> Sae:
        """The autoencoder at `site`, or at the site that the file names; ValueError where they differ or both lack."""
        if site is not None and self.site is not None and site != self.site:
            raise ValueError(
                f"{where}: the autoencoder is for site {self.site}, {site} was asked for; nothing was loaded"
            )
        if (place := site or self.site) is None:
            raise ValueError(
                f"{where}: the file does not say which site it is for; pass site=Site(component, path)"
                + ("" if self.hook is None else f", or subject= to look up its place {self.hook!r}")
            )
        if self.reads != place.side and self.reads == "change":
            raise ValueError(
                f"{where}: it reads what a block adds to its input, by its configuration, and {place} is another tensor; "
                f'pass site=Site({place.component!r}, {place.path!r}, \'change\'), or put "reads": "out" into the '
                "configuration if it was trained on the output itself"
            )
        for name in ("W_enc", "W_dec"):
            if not bool(getattr(self, name).any()):
                raise ValueError(
                    f"{where}: what is read as {name} is 0 everywhere, so the file was never filled; get it again"
                )
        kind = _common(self.W_enc, self.b_enc, self.W_dec, self.b_dec)
        return Sae(
            place,
            self.activation.to(kind),
            W_enc=self.W_enc.to(kind).contiguous(),
            b_enc=self.b_enc.to(kind).contiguous(),
            W_dec=self.W_dec.to(kind).contiguous(),
            b_dec=self.b_dec.to(kind).contiguous(),
            scale=self.scale if self.row_norm == "none" else self.row_norm,
            made_by=self.made_by,
        )


def _common(*tensors: Tensor) -> torch.dtype:
    """The widest dtype of the weights: products need one."""
    kind = tensors[0].dtype
    for tensor in tensors:
        kind = torch.promote_types(kind, tensor.dtype)
    return kind


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint's folder."""

    config: Keys
    tensors: Mapping[str, Tensor]
    where: str
    """What messages call it."""
    folder: Path | None = None
    """None for a live module, which has no files beside it."""
    taken: set[str] = field(default_factory=set)
    """Tensors that were used."""

    def take(self, shapes: Mapping[str, Sequence[int]], says: str) -> tuple[Tensor, ...]:
        """The tensors called as in `shapes`, in that order. ValueError naming the first that lacks or is of another shape."""
        for name, shape in shapes.items():
            found = tuple(self.tensors[name].shape) if name in self.tensors else None
            if found != tuple(shape):
                raise ValueError(f"{self.where}: {name} is {found}, {says} asks for {tuple(shape)}")
        self.taken.update(shapes)
        return tuple(self.tensors[name] for name in shapes)

    def pass_over(self, *names: str) -> None:
        """Say that these tensors, where they are there, hold nothing that codes depend on."""
        self.taken.update(names)

    def finish(self) -> None:
        """ValueError naming the tensors that nothing was made of: what they do is not known."""
        if left := sorted(set(self.tensors) - self.taken):
            raise ValueError(
                f"{self.where}: {', '.join(left)} would be left over, and what they do to the codes is not known; "
                "nothing was loaded"
            )


def told_by(name: str, *sections: Keys) -> dict[str, Any]:
    """`made_by` of a published autoencoder: its format, and every key of the configuration that no weight holds."""
    out: dict[str, Any] = {"format": name}
    for section in sections:
        out |= {f"their_{key}" if key in OURS or key in out else key: value for key, value in section.kept().items()}
    return out


@dataclass(frozen=True)
class Format:
    """How one kind of checkpoint is told from the others, and read."""

    config: str | None
    """Name of its JSON file; None where it has none."""
    weights: str
    """Pattern of its file of weights, below the folder; one file must fit."""
    tells: Callable[[frozenset[str], Keys], bool]
    """Whether the names of the tensors, and then the configuration, are those of this format."""
    read: Callable[[Checkpoint], Parts]
    needs: str = ""
    """Its tensors, in words."""
    elsewhere: tuple[tuple[str, str], ...] = ()
    """Other names of its two files."""

    def found(self, folder: Path) -> tuple[Path | None, Path] | None:
        """Configuration and weights in `folder`, or None where one of the two is not there."""
        for config, pattern in ((self.config, self.weights), *self.elsewhere):
            weights = sorted(folder.glob(pattern))
            if len(weights) == 1 and (config is None or (folder / config).is_file()):
                return (None if config is None else folder / config), weights[0]
        return None


def centred(W_enc: Tensor, b_enc: Tensor, b_dec: Tensor) -> Tensor:
    """The encoder bias (f,) that gives, on x - b_dec, what `b_enc` gives on x."""
    return (b_enc.double() + b_dec.double() @ W_enc.double()).to(b_enc.dtype)


def widths(file: Checkpoint, name: str) -> tuple[int, int]:
    """The shape of the matrix called `name`. ValueError where it is no matrix."""
    matrix = file.tensors.get(name)
    if matrix is None or matrix.ndim != 2:
        shape = None if matrix is None else tuple(matrix.shape)
        raise ValueError(f"{file.where}: {name} is {shape}; a matrix is asked for")
    return matrix.shape[0], matrix.shape[1]


def finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds NaN or infinity, or None."""
    return next((name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())), None)
