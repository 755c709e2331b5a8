"""Write an edit in a form of others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from concept_probe.erasers.erasure.base import WrongBase
from concept_probe.erasers.erasure.deltas import Delta, Shift, Sum
from concept_probe.erasers.erasure.lora import with_last_matrix, write_peft_adapters, write_pipeline_adapter
from concept_probe.erasers.erasure.lora_factors import Factors, lora_factors
from concept_probe.erasers.erasure.parameters import find_parameter, split_address
from concept_probe.erasers.interop.lower import lowered
from concept_probe.erasers.interop.naming import NamedPieces, by_underscores, in_checkpoints, in_comfy
from concept_probe.erasers.interop.places import Names, Piece, every_parameter
from concept_probe.storage import write_tensors

if TYPE_CHECKING:
    from concept_probe.erasers.erasure.edit import Edit
    from concept_probe.families import Subject

_OF_ONE_BY_ONE = re.compile(r"first_stage_model\..*\.attn_1\.(q|k|v|proj_out)\.weight")
"""Matrices of the autoencoder's attention, which checkpoints keep as convolutions."""


@dataclass(frozen=True)
class ToWrite:
    """An edit of a subject, and how it is to be written."""

    edit: Edit
    subject: Subject
    folder: Path
    rank: int | None = None
    """Of a product, at most; None: whole."""
    leave_out: bool = False
    """Whether what the form can't hold is left out, with a warning."""

    @property
    def file(self) -> Path:
        """The one file of a form that is one, named after the edit."""
        name = re.sub(r"[^\w.+-]+", "-", "-".join(filter(None, (self.edit.concept, self.edit.name))))
        return self.folder / f"{name}.safetensors"

    def deltas(self) -> dict[str, Delta]:
        """The changes there are. WrongBase for an edit of other weights, ValueError for none."""
        found = self.subject.weight_hash()
        if found != self.edit.base_hash:
            raise WrongBase(
                f"edit {self.edit.name!r} was made for weights {self.edit.base_hash}, and {self.subject.name!r} has {found}; "
                "nothing was written. Give the subject it was made for"
            )
        out = {where: delta for where, delta in self.edit.deltas.items() if not delta.is_empty()}
        if not out:
            raise ValueError(f"edit {self.edit.name!r} changes nothing, so there is nothing to write")
        return out

    def factors(self, whose: Iterable[str] | None = None, what: str = "") -> dict[str, dict[str, Factors]]:
        """Products of the changes, at the rank that is asked for. ValueError for those of components other than `whose`."""
        factors = lora_factors(self.deltas(), self.subject, leave_out=self.leave_out)
        self.refuse([c for c in factors if whose is not None and c not in whose], what)
        return lowered(factors, self.rank)

    def refuse(self, without: list[str], what: str) -> None:
        """ValueError naming the first of `without`, which the form has no place for."""
        if without:
            raise ValueError(
                f"{what} has no place for {without[0]!r} of {self.subject.name!r}; write the form 'edit' or 'pipeline'"
            )


def write_edit(asked: ToWrite) -> tuple[Path, ...]:
    return (asked.edit.save(asked.folder),)


def write_diffusers(asked: ToWrite) -> tuple[Path, ...]:
    loads = getattr(asked.subject.pipeline, "_lora_loadable_modules", ())
    factors = asked.factors(loads, f"the loader of LoRAs of {type(asked.subject.pipeline).__name__}")
    return (write_pipeline_adapter(factors, asked.folder),)


def write_peft(asked: ToWrite) -> tuple[Path, ...]:
    return write_peft_adapters(asked.factors(), asked.deltas(), asked.folder)


def write_kohya(asked: ToWrite) -> tuple[Path, ...]:
    names = _names(by_underscores(asked.subject))
    held: dict[str, dict[str, Factors]] = {}
    for component, matrices in asked.factors().items():
        for path, pair in with_last_matrix(component, matrices, ".out_proj").items():
            where = f"{component}/{path}:weight"
            held.setdefault(_named(asked, names, where, "kohya"), {})[where] = pair
    tensors: dict[str, Tensor] = {}
    for name, pairs in held.items():
        tensors |= _product(name, *_joined(names.pieces[name], pairs))
    return _written(asked, tensors)


def write_comfy(asked: ToWrite) -> tuple[Path, ...]:
    """What has a low rank, or is to be brought to one, as a product; anything else as the whole change."""
    names = _names(in_comfy(asked.subject))
    held: dict[str, dict[str, Delta]] = {}
    for where, delta in asked.deltas().items():
        held.setdefault(_named(asked, names, where, "comfy"), {})[where] = delta
    products = {
        where: delta
        for name, deltas in held.items()
        if name.endswith(".weight") and all(_may_be_product(asked, where, delta) for where, delta in deltas.items())
        for where, delta in deltas.items()
    }
    factors = lowered(lora_factors(products, asked.subject), asked.rank) if products else {}
    tensors: dict[str, Tensor] = {}
    for name, deltas in held.items():
        if next(iter(deltas)) in products:
            pairs = {where: factors[split_address(where)[0]][_path(where)] for where in deltas}
            tensors |= _product(name, *_joined(names.pieces[name], pairs))
        else:
            stem, _, leaf = name.rpartition(".")
            kind = {"weight": "diff", "bias": "diff_b"}.get(leaf)
            if kind is None:
                asked.refuse([next(iter(deltas))], "the form 'comfy'")
            tensors[f"{stem}.{kind}"] = _side_by_side(asked, names.pieces[name], deltas)
    return _written(asked, tensors)


def _may_be_product(asked: ToWrite, where: str, delta: Delta) -> bool:
    parameter = find_parameter(asked.subject.components, where)
    module = asked.subject.components[split_address(where)[0]].get_submodule(_path(where))
    matrix = parameter.ndim > 1 and not isinstance(module, nn.Embedding)
    return matrix and (asked.rank is not None or not _is_whole(delta))


def _path(where: str) -> str:
    return split_address(where)[1].rpartition(".")[0]


def _joined(pieces: tuple[Piece, ...], pairs: Mapping[str, Factors]) -> Factors:
    """The product of a file's tensor from those of the parameters whose rows it holds."""
    if len(pieces) == 1:
        return pairs[pieces[0].where]
    pairs = {where: pair for where, pair in pairs.items() if any(piece.where == where for piece in pieces)}
    height = max(piece.rows[1] for piece in pieces if piece.rows)
    columns, at = {}, 0
    for where, (a, _) in pairs.items():
        columns[where] = slice(at, at + len(a))
        at += len(a)
    first = next(iter(pairs.values()))[1]
    up = first.new_zeros(height, at, *first.shape[2:])
    for piece in pieces:
        if piece.where in pairs and piece.rows:
            b = pairs[piece.where][1]
            up[slice(*piece.rows), columns[piece.where]] = b[slice(*piece.at)] if piece.at else b
    return torch.cat([a for a, _ in pairs.values()]), up


def _side_by_side(asked: ToWrite, pieces: tuple[Piece, ...], deltas: Mapping[str, Delta]) -> Tensor:
    """The whole change of a file's tensor, of zeros where nothing is changed."""
    parts = []
    for piece in pieces:
        parameter = find_parameter(asked.subject.components, piece.where)
        zero = torch.zeros_like(parameter, dtype=torch.float32)
        whole = deltas[piece.where].apply(zero) if piece.where in deltas else zero
        parts.append(whole[slice(*piece.at)] if piece.at else whole)
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def write_state_dicts(asked: ToWrite) -> tuple[Path, ...]:
    """A file for each component that is changed, named after it."""
    out = []
    touched = dict.fromkeys(split_address(where)[0] for where in asked.deltas())
    with asked.edit.on(asked.subject):
        for component in touched:
            place = asked.folder / f"{component}.safetensors"
            write_tensors(place, asked.subject.components[component].state_dict(), {"format": "pt"})
            out.append(place)
    return tuple(out)


def write_pipeline_folder(asked: ToWrite) -> tuple[Path, ...]:
    asked.deltas()
    with asked.edit.on(asked.subject):
        asked.subject.pipeline.save_pretrained(asked.folder, safe_serialization=True)
    return (asked.folder,)


def write_checkpoint(asked: ToWrite) -> tuple[Path, ...]:
    """All of U-Net, text encoders and autoencoder; ValueError for a part of which checkpoints know no name."""
    asked.deltas()
    subject = asked.subject
    _refuse_checkpoint(asked)
    with asked.edit.on(subject):
        held = {where: x.data for c, m in subject.components.items() for _, where, x in every_parameter(c, m)}
        tensors: dict[str, Tensor] = {}
        left = dict.fromkeys(held)
        for name, pieces in in_checkpoints(subject):
            if all(piece.where in left for piece in pieces):
                parts = [held[piece.where].mT if piece.turned else held[piece.where] for piece in pieces]
                x = torch.cat(parts) if len(parts) > 1 else parts[0]
                tensors[name] = x[..., None, None] if _OF_ONE_BY_ONE.fullmatch(name) and x.ndim == 2 else x
                for piece in pieces:
                    del left[piece.where]
        asked.refuse(list(left), "a checkpoint of latent diffusion")
        return _written(asked, tensors)


def _refuse_checkpoint(asked: ToWrite) -> None:
    components = asked.subject.components
    if "unet" not in components:
        raise ValueError(
            f"a checkpoint of one file is written of pipelines with a U-Net; {asked.subject.name!r} has {', '.join(components)}; "
            "write the form 'pipeline'"
        )
    config: Any = getattr(components.get("text_encoder"), "config", None)
    if "text_encoder_2" not in components and getattr(config, "hidden_act", "") == "gelu":
        raise ValueError(
            "a checkpoint of Stable Diffusion 2 holds a last layer of the text encoder that its pipeline leaves out, so it can't be "
            "written from the pipeline; write the form 'pipeline'"
        )


@dataclass(frozen=True)
class _Names:
    """What a naming calls each parameter, the first of its names, and all that stands under that name."""

    of: Mapping[str, str]
    pieces: Names


def _names(naming: NamedPieces) -> _Names:
    of: dict[str, str] = {}
    pieces: dict[str, tuple[Piece, ...]] = {}
    for name, held in naming:
        if all(piece.where not in of for piece in held):
            pieces[name] = held
            of |= {piece.where: name for piece in held}
    return _Names(of, pieces)


def _named(asked: ToWrite, names: _Names, where: str, form: str) -> str:
    if where not in names.of:
        asked.refuse([where], f"the form {form!r}")
    return names.of[where]


def _product(name: str, a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """A product by the names that come from kohya. Without an α every loader takes it as it is; diffusers mistakes one that
    differs between modules."""
    stem = name.removesuffix(".weight")
    return {f"{stem}.lora_down.weight": a, f"{stem}.lora_up.weight": b}


def _is_whole(delta: Delta) -> bool:
    if isinstance(delta, Sum):
        return any(_is_whole(part) for part in delta.parts)
    return isinstance(delta, Shift)


def _written(asked: ToWrite, tensors: Mapping[str, Tensor]) -> tuple[Path, ...]:
    write_tensors(asked.file, tensors, {"format": "pt"})
    return (asked.file,)
