"""Which parameters of a subject the tensors of a file speak of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from concept_probe.erasers.erasure.parameters import find_parameter
from concept_probe.erasers.interop.groups import WHOLE_PARAMETER, ModuleGroup
from concept_probe.erasers.interop.naming import bare_tables, tables
from concept_probe.erasers.interop.places import Names, Piece
from concept_probe.registry import look_up

if TYPE_CHECKING:
    from concept_probe.families import Subject

_WRAPPED = re.compile(r"^(?:module\.|_orig_mod\.|base_model\.model\.)+")
_BESIDE = re.compile(
    r"^model_ema\.|(^|\.)(betas|alphas_cumprod(_prev)?|(sqrt_|log_)\w+|posterior_\w+|lvlb_weights|sigmas|log_sigmas)$"
    r"|(^|\.)position_ids$|(^|\.)logit_scale$|^loss\.|\.attn\.(masked_)?bias$|\.inv_freq$|^scale_factor$"
)
"""Names of tensors that stand beside a model's weights and are none: averages of them, a schedule, constants."""
_PUBLISHED_BUFFERS = {
    "pos_embed.pos_embed": ("pos_embed", "model.diffusion_model.pos_embed", "diffusion_model.pos_embed")
}
"""Buffers to what those who published a model call them."""
_OPEN_CLIP_LAYER = re.compile(
    r"^(cond_stage_model|conditioner\.embedders\.\d+)\.model\.(transformer\.resblocks\.(\d+)\.|text_projection$)"
)


@dataclass(frozen=True)
class Placed:
    """Which places each parameter that a file names has, and what of it was passed over."""

    naming: str
    places: Mapping[tuple[str, str], tuple[Piece, ...]]
    """By the stem of a group and which of its parameters, see `ModuleGroup.names`."""
    beside: tuple[str, ...]
    """Names of tensors that are no weights."""


def placed_groups(groups: Sequence[ModuleGroup], subject: Subject, told: str, component: str | None = None) -> Placed:
    """The places of all groups.

    `told` is how a message calls the file. ValueError naming those that have none, and where names that don't say their
    component fit several: `component` settles that.
    """
    if component is not None:
        look_up(subject.components, component, "component", subject.name)
    table = {name: pieces for names in tables(subject).values() for name, pieces in names.items()}
    own = "" if component is None else component
    groups, beside = _without_beside(groups, subject, table)
    found, left = _found(groups, table)
    if not left and groups:
        return Placed(_naming(groups, subject), found, beside)
    tried: list[tuple[str, str, dict[tuple[str, str], tuple[Piece, ...]], list[str]]] = []
    for name in [own] if own else subject.components:
        for naming, names in bare_tables(subject, name).items():
            tried.append((name, naming, *_found(groups, names)))
    whole = [one for one in tried if not one[3] and groups and _shapes_fit(groups, one[2], subject)]
    if len({one[0] for one in whole}) > 1:
        held = ", ".join(dict.fromkeys(one[0] for one in whole))
        raise ValueError(
            f"{told} fits several components of {subject.name!r} ({held}); say which is meant: component={whole[0][0]!r}"
        )
    if whole:
        name, naming, places, _ = whole[0]
        return Placed(f"{naming} of {name}", places, beside)
    near = min([("", "", found, left), *tried], key=lambda one: len(one[3]))
    raise ValueError(_refusal(told, subject, groups, near[3], near[0]))


def _refusal(told: str, subject: Subject, groups: Sequence[ModuleGroup], left: Sequence[str], component: str) -> str:
    if not groups:
        return f"{told} holds no weight of a model"
    where = f"{component!r} of {subject.name!r}" if component else repr(subject.name)
    if not left:
        return f"{told}: its names fit {where}, and the shapes of its tensors don't; it is of a model of another size"
    more = f" and {len(left) - 3} more" if len(left) > 3 else ""
    return (
        f"{told}: {len(left)} of its {len(groups)} parts have no place in {where}: {', '.join(map(repr, left[:3]))}{more}; it is of "
        "another model, or in a form that isn't known, and nothing of it was taken"
    )


def _found(groups: Iterable[ModuleGroup], table: Names) -> tuple[dict[tuple[str, str], tuple[Piece, ...]], list[str]]:
    """Places by stem and leaf, and the file's names of what has none."""
    places, left = {}, []
    for group in groups:
        stem = _bare(group.stem)
        for name, leaf in group.names():
            pieces = table.get(stem if leaf == WHOLE_PARAMETER else f"{stem}.{name.rpartition('.')[2]}")
            if pieces is None:
                left.append(group.keys[0])
            else:
                places[group.stem, leaf] = pieces
    return places, left


def _without_beside(
    groups: Sequence[ModuleGroup], subject: Subject, table: Names
) -> tuple[list[ModuleGroup], tuple[str, ...]]:
    """The groups that are of weights, and the names of the rest: constants, and what stands in a component itself, as the
    subject has it."""
    held = {
        name: (x, isinstance(x, nn.Parameter))
        for component, module in subject.components.items()
        for path, x in (*module.named_buffers(), *module.named_parameters(recurse=False))
        for name in (f"{component}.{path}", path, *_PUBLISHED_BUFFERS.get(path, ()))
    }
    kept, beside = [], []
    for group in groups:
        stem = _bare(group.stem)
        x = group.tensors.get(WHOLE_PARAMETER)
        if (
            x is not None
            and stem not in table
            and (_BESIDE.search(stem) or _same(x, *held.get(stem, (None, True))) or _unread(stem, table))
        ):
            beside.append(group.keys[0])
        else:
            kept.append(group)
    return kept, tuple(beside)


def _bare(stem: str) -> str:
    """A name without what trainers wrap models in."""
    return _WRAPPED.sub("", stem).replace(".base_layer.", ".")


def _same(x: Tensor, held: Tensor | None, exact: bool) -> bool:
    """Whether a tensor is the subject's own: of a parameter to the bit of its dtype, of a constant to one in a hundred."""
    if held is None or x.shape != held.shape:
        return False
    own = held.detach().to(x.device)
    if exact:
        return bool(((own.to(x.dtype) == x) | (x.to(own.dtype) == own)).all())
    return bool(torch.allclose(x.float(), own.float(), rtol=1e-2))


def _unread(stem: str, table: Names) -> bool:
    """Whether it is of a part of OpenCLIP that pipelines leave out: its last layer, and the projection behind it."""
    found = _OPEN_CLIP_LAYER.match(stem)
    if not found:
        return False
    start = stem[: found.start(2)]
    layers = {
        int(m[1]) for name in table if (m := re.match(re.escape(start) + r"transformer\.resblocks\.(\d+)\.", name))
    }
    return bool(layers) and (int(found[3]) == max(layers) + 1 if found[3] else found[2] == "text_projection")


def _shapes_fit(
    groups: Iterable[ModuleGroup], places: Mapping[tuple[str, str], tuple[Piece, ...]], subject: Subject
) -> bool:
    """Whether whole parameters have as many numbers as the file's, and products as many rows."""
    for group in groups:
        for _, leaf in group.names():
            found = [find_parameter(subject.components, piece.where) for piece in places[group.stem, leaf]]
            if leaf == WHOLE_PARAMETER and group.tensors[WHOLE_PARAMETER].numel() != sum(x.numel() for x in found):
                return False
            if leaf == "weight" and "up" in group.tensors and "down" in group.tensors:
                sides = len(group.tensors["up"]), group.tensors["down"][0].numel()
                if "mid" not in group.tensors and sides[0] * sides[1] != sum(x.numel() for x in found):
                    return False
    return True


def _naming(groups: Sequence[ModuleGroup], subject: Subject) -> str:
    """The namings that the file's names are of, joined."""
    used = {}
    for naming, names in tables(subject).items():
        places, _ = _found(groups, names)
        if places:
            used[naming] = len(places)
    return " + ".join(sorted(used, key=lambda name: -used[name]))
