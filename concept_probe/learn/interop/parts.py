"""What every reader of a format returns: weights in our convention, and the checks that they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from concept_probe.learn.sae import Activation, Sae
from concept_probe.types import Site


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
    site: Site | None = None
    """None where the file does not say."""
    made_by: Mapping[str, object] = field(default_factory=dict)

    def build(self, site: Site | None, where: str) -> Sae:
        """The autoencoder at `site`, or at the site that the file names; ValueError where they differ or both lack."""
        if site is not None and self.site is not None and site != self.site:
            raise ValueError(
                f"{where}: the autoencoder is for site {self.site}, {site} was asked for; nothing was loaded"
            )
        if (place := site or self.site) is None:
            raise ValueError(f"{where}: the file does not say which site it is for; pass site=Site(component, path)")
        return Sae(
            place,
            self.activation,
            W_enc=self.W_enc.contiguous(),
            b_enc=self.b_enc,
            W_dec=self.W_dec.contiguous(),
            b_dec=self.b_dec,
            scale=self.scale,
            made_by=self.made_by,
        )


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint's folder."""

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    where: str
    """What messages call it."""
    folder: Path | None = None
    """None for a live module, which has no files beside it."""

    def take(self, shapes: Mapping[str, Sequence[int]], says: str) -> tuple[Tensor, ...]:
        """The tensors called as in `shapes`, in that order. ValueError naming the first that lacks or is of another shape."""
        for name, shape in shapes.items():
            found = tuple(self.tensors[name].shape) if name in self.tensors else None
            if found != tuple(shape):
                raise ValueError(f"{self.where}: {name} is {found}, {says} asks for {tuple(shape)}")
        return tuple(self.tensors[name] for name in shapes)

    def whole(self, key: str) -> int:
        """The whole number under `key` of the configuration; ValueError naming what is there instead."""
        value = self.config.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
            raise ValueError(f"{self.where}: {key} is {value!r} in the configuration; a whole number is needed")
        return int(value)


@dataclass(frozen=True)
class Format:
    """How one kind of checkpoint is told from the others, and read."""

    config: str
    """Name of its JSON file."""
    weights: str
    """Pattern of its file of weights; one file must fit."""
    read: Callable[[Checkpoint], Parts]

    def found(self, folder: Path) -> tuple[Path, Path] | None:
        """Configuration and weights in `folder`, or None where one of the two is not there."""
        config, weights = folder / self.config, sorted(folder.glob(self.weights))
        return (config, weights[0]) if config.is_file() and len(weights) == 1 else None


def centred(W_enc: Tensor, b_enc: Tensor, b_dec: Tensor) -> Tensor:
    """The encoder bias (f,) that gives, on x - b_dec, what `b_enc` gives on x."""
    return (b_enc.double() + b_dec.double() @ W_enc.double()).to(b_enc.dtype)


def refuse(condition: object, where: str, what: str, why: str) -> None:
    """ValueError where `condition` holds: an option under which our codes would differ from the original's."""
    if condition:
        raise ValueError(f"{where}: {what}, {why}; nothing was loaded")


def finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds NaN or infinity, or None."""
    return next((name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())), None)
