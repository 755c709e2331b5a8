"""Whether an autoencoder is of the model that it is used on."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from concept_probe.learn.context import processed
from concept_probe.learn.sae import Sae
from concept_probe.types import BOS, Prompt

if TYPE_CHECKING:
    from concept_probe.families import Subject

ACCEPTED = "accepted"
"""Key of `made_by`: hashes of the weights of other models that the autoencoder is meant to be used on."""
HALF = (torch.float16, torch.bfloat16)


def accept_subject(sae: Sae, subject: Subject) -> Sae:
    """The autoencoder, meant to be used on this subject although it was trained on another.

    >>> found = find_features(accept_subject(sae, finetuned), finetuned, concept)

    Weights are shared. Of a model that was trained on, or of another seed: what features mean there is for you to show.
    """
    weights = {name: getattr(sae, name).detach() for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    hashes = dict.fromkeys((*_accepted(sae.made_by), subject.weight_hash()))
    made_by = {**sae.made_by, ACCEPTED: list(hashes)}
    scale = sae.scale if sae.row_norm == "none" else sae.row_norm
    return Sae(sae.site, sae.activation, **weights, scale=scale, made_by=made_by)


def check_belongs(codec: object, subject: Subject) -> None:
    """ValueError for an autoencoder that was trained on other weights than the subject's, with its edits on or aside.

    Published ones don't say which weights they were trained on: a warning where the model is called otherwise, or the
    configuration says that its rows were made in another way. So do those of a subject in half precision, whose bytes
    differ from those of the same model in full.
    """
    made_by = getattr(codec, "made_by", None)
    if not isinstance(made_by, Mapping):
        return
    site = getattr(codec, "site", "a site")
    own = made_by.get("weight_hash")
    if not own:
        for note in notes(made_by, subject):
            warnings.warn(f"the autoencoder over {site}: {note}", stacklevel=3)
        return
    known = {own, *_accepted(made_by)}
    if subject.weight_hash() in known:
        return
    with subject.state.unedited():
        if subject.weight_hash() in known:
            return
    said = (
        f"the autoencoder over {site} was trained on {made_by.get('subject', 'a model')!r} with weights {str(own)[:12]}, and "
        f"{subject.name!r} has weights {subject.weight_hash()[:12]}"
    )
    if subject.dtype in HALF:
        warnings.warn(f"{said}: it may be the same model in {subject.dtype}, or another", stacklevel=3)
        return
    raise ValueError(
        f"{said}: its features are those of another model. Train one on this model, or say that you mean it with "
        "concept_probe.learn.accept_subject(sae, subject)"
    )


def check_rows_belong(codec: Sae, activations: object) -> None:
    """ValueError for rows of other weights than those that the autoencoder was trained on."""
    own, theirs = codec.made_by.get("weight_hash"), getattr(activations, "weight_hash", None)
    if not own or not theirs or theirs in {own, *_accepted(codec.made_by)}:
        return
    raise ValueError(
        f"the autoencoder over {codec.site} was trained on {codec.made_by.get('subject', 'a model')!r} with weights "
        f"{str(own)[:12]}, and the activations are of {getattr(activations, 'subject', 'a model')!r} with weights "
        f"{str(theirs)[:12]}: capture them on its own model, or say that you mean it with concept_probe.learn.accept_subject(sae, subject)"
    )


def _accepted(made_by: Mapping[str, Any]) -> tuple[str, ...]:
    held = made_by.get(ACCEPTED, ())
    return tuple(str(one) for one in held) if isinstance(held, list | tuple) else ()


def notes(made_by: Mapping[str, Any], subject: Subject) -> list[str]:
    """In what the subject differs from what a published autoencoder says of its model."""
    out = []
    named = next((made_by[key] for key in ("model_name", "lm_name") if isinstance(made_by.get(key), str)), None)
    if named and not _alike(named, subject.name):
        out.append(f"it was trained on {named!r}, and the subject is {subject.name!r}")
    if options := processed(made_by):
        out.append(f"its model was loaded with {', '.join(options)}, and the subject's weights are as published")
    begins = made_by.get("prepend_bos")
    if isinstance(begins, bool) and subject.answers == "texts":
        marks = int(subject.tokenise([Prompt("a")]).kinds[0, 0]) == BOS
        if begins and not marks:
            out.append("its texts began with a mark of their beginning (prepend_bos), and this tokenizer adds none")
        if marks and not begins:
            out.append("its texts had no mark of their beginning (prepend_bos is false), and this tokenizer adds one")
    return out


def _alike(one: str, other: str) -> bool:
    """Whether two names may be of one model: the last part of one holds that of the other."""
    a, b = (re.sub(r"[^a-z0-9]", "", name.rstrip("/").rpartition("/")[2].lower()) for name in (one, other))
    return a in b or b in a
