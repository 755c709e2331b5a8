"""Run a subject over prompts and keep where its pictures look."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.families.diffusion.subject import DiffusionSubject
from concept_probe.families.identity import hooks_of_others, how_it_reads
from concept_probe.families.progress import progress
from concept_probe.families.subject import SAMPLING
from concept_probe.families.text.tokens import queries_of
from concept_probe.find.attention.asked import Words, asked_words, kept_layers, kept_steps, latents_of
from concept_probe.find.attention.batch import MapOptions, MappedBatch
from concept_probe.find.attention.files import INDEX, read_index, write_index, write_part
from concept_probe.find.attention.maps import AttentionMaps
from concept_probe.find.attention.words import word_places
from concept_probe.storage import content_sha256, only_writer
from concept_probe.types import Prompt, Query, Sampling

if TYPE_CHECKING:
    from concept_probe.families import Subject


def attention_maps(
    subject: Subject,
    prompts: Sequence[Prompt] | Sequence[Query],
    *,
    words: Words = None,
    layers: Sequence[str] | None = None,
    pictures: Float[Tensor, "n 3 h w"] | None = None,
    folder: str | Path | None = None,
    sampling: Sampling = SAMPLING,
    options: MapOptions = MapOptions(),
) -> AttentionMaps:
    """Draw `prompts`, and keep how much each patch attends to each word, layer by layer and step by step.

    >>> maps = attention_maps(subject, [Prompt("a camel and a rocket")], words=["camel", "rocket"])
    >>> maps.of("camel")

    The maps are softmax(q kᵀ scale + mask) of what each layer computes with, summed over the tokens of a word: each
    occurrence of it apart. `words` are looked for in every prompt; a list of lists has each prompt's own; None is every
    word. `layers` are names or kinds of layers (`cross`, `joint`, `self`); None is all that read the text, and those where the
    image looks at itself where `options.points` are given. With `pictures`, one for each prompt, the denoiser sees these with
    the noise of each step, in place of what it would make.

    One batch of prompts is in memory at a time. `folder` None is a temporary folder that lives as long as the maps; the same
    call into the same folder goes on from the last whole batch. No picture changes by a bit. ValueError for a word that a
    prompt does not say, for layers without weights, for a folder with other maps.
    """
    if not isinstance(subject, DiffusionSubject):
        raise ValueError(
            f"{subject.name} answers with {subject.answers}; attention maps are of models that draw pictures"
        )
    queries = queries_of(prompts)
    if not queries:
        raise ValueError("no prompt was given to make attention maps of")
    said = asked_words(words, [query.prompt for query in queries])
    chosen = kept_layers(subject, layers, bool(options.points))
    steps = kept_steps(options.steps, subject.passes(sampling))
    latents = None if pictures is None else latents_of(subject, pictures, len(queries))
    header = {
        "subject": subject.name, "weight_hash": subject.weight_hash(whole=folder is not None),
        "queries": [
            {"text": q.prompt.text, "subject": q.prompt.subject, "seed": q.seed, "words": list(of)}
            for q, of in zip(queries, said, strict=True)
        ],
        "layers": [{"name": layer.name, "kind": layer.kind} for layer in chosen],
        "branches": sorted(set(options.branches)), "steps": list(steps), "heads": options.heads,
        "measure": options.measure, "points": [list(point) for point in options.points],
        "more": _more(subject, sampling, pictures),
    }  # fmt: skip
    owner = tempfile.TemporaryDirectory(prefix="concept_probe-") if folder is None else None
    place = Path(owner.name if owner else str(folder))
    with only_writer(place, "attention maps"):
        files = _begun(place, header)
        done = sum(made["count"] for made in files)
        if done < len(queries):
            write_index(place, header, files)
        shown = len(queries) if len(queries) > sampling.batch else 0
        with subject.state.alone(), torch.no_grad(), progress("prompts mapped", shown, done) as count:
            for start in range(done, len(queries), sampling.batch):
                part = queries[start : start + sampling.batch]
                places = word_places(
                    subject, [q.prompt for q in part], said[start : start + len(part)], cut=words is None
                )
                batch = MappedBatch(subject, chosen, places, steps, options)
                tensors = batch.run(part, sampling, None if latents is None else latents[start : start + len(part)])
                seal = content_sha256(tensors)
                made = {
                    "file": write_part(place, len(files), tensors, seal),
                    "seal": seal,
                    "first": start,
                    **batch.told(),
                }
                files.append(made)
                write_index(place, header, files)
                count(len(part))
    return AttentionMaps(place, owner)


def _more(subject: DiffusionSubject, sampling: Sampling, pictures: Tensor | None) -> dict[str, Any]:
    """What besides decides the maps."""
    told: dict[str, Any] = {
        "sampling": {name: value for name, value in sampling.options().items() if name in ("steps", "guidance", "guidance_rescale")},
        "reads": how_it_reads(subject), "picture_size": list(subject.picture_size), "conventions": subject.conventions(),
        "on": subject.state.on(), "hooks": hooks_of_others(subject),
    }  # fmt: skip
    return told if pictures is None else told | {"pictures": content_sha256({"pictures": pictures})}


def _begun(folder: Path, header: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a run that was stopped has written into `folder`. ValueError where that is of other maps."""
    if not (folder / INDEX).is_file():
        return []
    index = read_index(folder)
    before, now = index["header"], _plain(header)
    if before != now:
        before, now = ({**of, **of.get("more", {})} for of in (before, now))
        other = next(name for name in {**now, **before} if name != "more" and before.get(name) != now.get(name))
        raise ValueError(
            f"{folder} holds attention maps with other {other} ({before.get(other)!r:.120}, now {now.get(other)!r:.120}); give "
            "another folder"
        )
    return list(index["files"])


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(value))
