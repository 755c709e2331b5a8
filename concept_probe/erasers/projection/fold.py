"""Bake a projection of a site into the matrices that read it, or into the one that writes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from concept_probe.erasers.erasure.deltas import Delta, LowRank, Shift
from concept_probe.erasers.erasure.parameters import address, dtype_of, find_parameter
from concept_probe.find.directions.projection import Projection
from concept_probe.types import Site

if TYPE_CHECKING:
    from concept_probe.families import Subject

FOLDABLE = ("text_out", "text_mlp_hidden", "text_mlp_out", "cross_key", "cross_value")
"""Roles whose sites are read, or written, by nothing but linear maps."""


@dataclass(frozen=True)
class Folded:
    deltas: dict[str, Delta]
    affine_dropped: tuple[str, ...]
    """Matrices without a bias, in which only the linear part of an affine projection found a place."""


def reads_with_bias(subject: Subject, site: Site) -> bool:
    """Whether every matrix that a projection at `site` would be folded into has a bias."""
    readers, _, _ = _places(subject, site)
    return all(_bias(subject, place) is not None for place in readers)


def fold(subject: Subject, site: Site, projection: Projection, strength: float) -> Folded:
    """Deltas that make the subject run as if rows at `site` were projected.

    Read by W:    W (x - s B Dᵀ (x - μ)) = (W - s W B Dᵀ) x + s W B Dᵀ μ
    Written by W: the same projection of W y + b is (W - s B Dᵀ W) y + b - s B Dᵀ (b - μ)

    The constant goes into the bias where there is one, and is left out, and said so, where there is
    none. Raises ValueError for a site that is read through anything but a linear map.
    """
    places, reading, offset = _places(subject, site)
    deltas: dict[str, Delta] = {}
    dropped = []
    for place in places:
        parameter = find_parameter(subject.components, address(place))
        weight = parameter.detach().to(dtype_of(parameter))
        basis, dual = projection.basis.to(weight), projection.dual.to(weight)
        mean = None if projection.mean is None else projection.mean.to(weight)
        bias = _bias(subject, place)
        if reading:
            if weight.shape[1] < offset + len(basis):
                raise ValueError(f"{address(place)!r} reads width {weight.shape[1]}, the projection has {len(basis)}")
            written = weight[:, offset : offset + len(basis)] @ basis
            deltas[address(place)] = LowRank(-strength * written, _padded(dual, offset, weight.shape[1]))
            constant = None if mean is None else strength * (written @ (dual.mT @ mean))
        else:
            if weight.shape[0] != len(basis):
                raise ValueError(f"{address(place)!r} writes width {weight.shape[0]}, the projection has {len(basis)}")
            deltas[address(place)] = LowRank(-strength * basis, weight.mT @ dual)
            shifted = None if bias is None else bias.detach().to(weight)
            if mean is not None:
                shifted = -mean if shifted is None else shifted - mean
            constant = None if shifted is None else -strength * (basis @ (dual.mT @ shifted))
        if constant is not None and bias is not None:
            deltas[address(place, "bias")] = Shift(constant)
        elif constant is not None:
            dropped.append(address(place))
    return Folded(deltas, tuple(dropped))


def _places(subject: Subject, site: Site) -> tuple[Sequence[Site], bool, int]:
    """Weight sites to fold into, whether they read (or else write) `site`, and the first column they read it in."""
    if subject.answers == "texts":
        raise ValueError(
            f"a projection at {str(site)!r} can't be baked into {subject.name}: a language model has no matrix that only reads "
            "or writes its text; use how='intervention'"
        )
    roles = [role for role in FOLDABLE if role in subject.roles() and site in subject.sites(role)]
    if not roles:
        known = [str(s) for role in FOLDABLE if role in subject.roles() for s in subject.sites(role)]
        raise ValueError(
            f"a projection at {str(site)!r} can't be baked: something that is not a linear map reads it. "
            f"Use it as an intervention, or bake at a site of role {', '.join(FOLDABLE)} ({len(known)} sites, "
            f"among them {', '.join(known[:3])})"
        )
    role = roles[0]
    if role == "text_out":
        if "cross_key_weight" not in subject.roles():
            raise ValueError(
                f"a projection at {str(site)!r} can't be baked: in {subject.name!r} the states of several encoders, or a pooled text, "
                "are read there by more than one matrix; use how='intervention'"
            )
        readers = [*subject.sites("cross_key_weight"), *subject.sites("cross_value_weight")]
        return readers, True, _offset(subject, site)
    if role == "text_mlp_hidden":
        return [Site(site.component, site.path, "weight")], True, 0
    if role == "text_mlp_out":
        inside = [s for s in subject.sites("mlp_value") if s.component == site.component]
        return [s for s in inside if s.path == site.path or s.path.startswith(site.path + ".")], False, 0
    return [Site(site.component, site.path, "weight")], False, 0


def _offset(subject: Subject, site: Site) -> int:
    """Where the columns of one text encoder start in the concatenated states of a pair."""
    outs = subject.sites("text_out")
    start = 0
    for other in outs[: outs.index(site)]:
        width = getattr(subject.components[other.component], "config").hidden_size  # noqa: B009  (nn.Module hides it)
        start += width
    return start


def _padded(dual: Tensor, offset: int, width: int) -> Tensor:
    out = dual.new_zeros(width, dual.shape[1])
    out[offset : offset + len(dual)] = dual
    return out


def _bias(subject: Subject, place: Site) -> nn.Parameter | None:
    module = subject.components[place.component].get_submodule(place.path)
    bias = getattr(module, "bias", None)
    return bias if isinstance(bias, nn.Parameter) else None
