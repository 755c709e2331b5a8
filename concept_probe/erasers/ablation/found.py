"""What was found, checked against a language model: columns of its feed-forwards, or autoencoders of its blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from concept_probe.types import Site, SparseCoder, Subspace

if TYPE_CHECKING:
    from concept_probe.families import CausalLMSubject

READ = ("resid", "mlp_out")
"""Roles of the sites that a feed-forward's output matrix writes into."""


def columns_of(model: CausalLMSubject, found: Sequence[Subspace], method: str) -> dict[Site, list[int]]:
    """Weight site of a down projection -> its columns among `found`, rising.

    Raises ValueError for a column that this model lacks.
    """
    matrices = model.sites("mlp_value")
    out: dict[Site, set[int]] = {}
    for space in found:
        if space.space != "parameter" or space.site.item is None:
            continue
        site = Site(space.site.component, space.site.path, "weight")
        if site not in matrices:
            raise ValueError(
                f"{method}: {space.site} is no column of a down projection of {model.name}; find_lm_columns finds those"
            )
        height, width = model.matrix(site).shape
        if space.site.item >= width or len(space.basis) != height:
            raise ValueError(
                f"{method}: {space.site} is column {space.site.item} of width {len(space.basis)}, and the matrix of "
                f"{model.name} is {(height, width)}; find the columns on this model"
            )
        out.setdefault(site, set()).add(space.site.item)
    return {site: sorted(out[site]) for site in matrices if site in out}


@dataclass(frozen=True)
class Dictionary:
    """An autoencoder over what a block, or its feed-forward, gives."""

    codec: SparseCoder
    role: str
    """One of `READ`."""
    block: int
    features: list[int] = field(default_factory=list)
    """Those that were found, in order."""


def dictionaries_of(model: CausalLMSubject, found: Sequence[Subspace], method: str) -> list[Dictionary]:
    """The autoencoders among `found`, lowest block first, each with its features.

    Raises ValueError for one at another site than `READ`, for one of another width, and for two at one site.
    """
    places = {site: (role, i) for role in READ for i, site in enumerate(model.sites(role))}
    out: dict[Site, Dictionary] = {}
    for space in found:
        if space.codec is None:
            continue
        if space.site not in places or space.codec.site != space.site:
            raise ValueError(
                f"{method}: the autoencoder is over {space.codec.site} and its features were found at {space.site}; it "
                f"needs one over {' or '.join(READ)} of {model.name}, read where it was trained, such as "
                f"{model.sites('resid')[0]}"
            )
        width = model.matrix(model.sites("mlp_value")[0]).shape[0]
        if space.codec.decoder.shape[1] != width:
            raise ValueError(
                f"{method}: the autoencoder over {space.site} has width {space.codec.decoder.shape[1]}, and "
                f"{model.name} has width {width}; load one that was trained on this model"
            )
        role, block = places[space.site]
        one = out.setdefault(space.site, Dictionary(space.codec, role, block))
        if one.codec is not space.codec:
            raise ValueError(f"{method}: two autoencoders at {space.site}; give the features of one")
        one.features.extend(j for j in space.features if j not in one.features)
    return sorted(out.values(), key=lambda d: (d.block, d.role))
