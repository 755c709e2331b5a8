"""Which format a folder is of, and the autoencoder in it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from concept_probe.learn.belongs import check_belongs
from concept_probe.learn.context import warn_of_processing
from concept_probe.learn.interop import dictionary_learning, gemma_scope, lens_reader, llama_scope, openai, sparsify
from concept_probe.learn.interop.keys import Keys
from concept_probe.learn.interop.lens_dialects import ours_of
from concept_probe.learn.interop.parts import Checkpoint, Format, Parts, finite
from concept_probe.learn.interop.places import BEGINS_WITH_LAYER, HOOK, check_width, is_foreign, same_tensor, site_named
from concept_probe.learn.interop.sealing import broken_seal
from concept_probe.learn.sae import Sae
from concept_probe.registry import UnknownName
from concept_probe.storage import CorruptFile, check_file, read_arrays, read_json, read_tensors, refuse_pickle
from concept_probe.types import Site

if TYPE_CHECKING:
    from concept_probe.families import Subject

FORMATS: dict[str, Format] = {
    "sae-lens": lens_reader.SAE_LENS,
    "sparsify": sparsify.SPARSIFY,
    "openai": openai.OPENAI,
    "dictionary_learning": dictionary_learning.DICTIONARY_LEARNING,
    "gemma-scope": gemma_scope.GEMMA_SCOPE,
    "gemma-scope-2": gemma_scope.GEMMA_SCOPE_2,
    "llama-scope": llama_scope.LLAMA_SCOPE,
}
"""A folder is of the one whose files, tensors and configuration it has."""
MEND = "get the file again, or train again"


def load_sae(folder: str | Path, *, site: Site | None = None, subject: Subject | None = None) -> Sae:
    """Read an autoencoder that `save_sae` or somebody else's code wrote; the format is told by its files and tensors.

    `site` must be given where the folder does not name one, as with every format but our own; with a `subject`, what
    the file or the folder calls its place is looked up there: `blocks.8.hook_resid_pre`, `layers.5.mlp`.

    Raises FileNotFoundError where no format fits (saying what was looked for), CorruptFile for a file
    that was cut or altered (naming it and the check), ValueError for a pickle, another site or width
    (naming both values; with a `subject` also where the file's own name for its place says another), a key or tensor
    that is not known, or an option that would change the codes; UnknownName for a place that the subject lacks.
    """
    folder = Path(folder)
    refuse_pickle(folder)
    parts = parts_in(folder)
    if subject is not None and parts.site is None:
        if site is None:
            site = _placed(parts, folder, subject, None)
        else:
            _check_asked(parts, site, folder, subject)
    return _built(parts, site, folder, subject)


def load_saes(folder: str | Path, *, component: str | None = None, subject: Subject | None = None) -> dict[str, Sae]:
    """Every autoencoder below `folder`, by the path of its sub-folder: published sets have one per hook point.

    Where a file does not name its site, it is taken from the sub-folder's name, which published sets give the module's
    path or a hook point: `unet.up_blocks.1.attentions.1`, `layers.5.mlp`, `blocks.8.hook_resid_pre`. With a `subject`
    the name is looked up there, whatever stands before it, and where it says nothing the folders above it are asked, as in
    `layer_1/width_16k/average_l0_20`. Without one it must be the whole path in `component`: ValueError for a name that
    begins with a block's number.
    Raises FileNotFoundError where there is none, UnknownName for a place that the subject lacks, and what `load_sae`
    raises.
    """
    folder = Path(folder)
    places = [p for p in sorted(p for p in folder.rglob("*") if p.is_dir()) if _fits(p)]
    if not places:
        raise FileNotFoundError(f"no sub-folder of {folder} holds an autoencoder; looked for {_looked_for()}")
    return {str(p.relative_to(folder).as_posix()): _read_named(p, folder, component, subject) for p in places}


def _read_named(folder: Path, root: Path, component: str | None, subject: Subject | None) -> Sae:
    parts = parts_in(folder)
    if parts.site is not None:
        return _built(parts, None, folder, subject)
    if subject is not None:
        return _built(parts, _placed(parts, folder, subject, component, root), folder, subject)
    owner, dot, path = folder.name.partition(".")
    if is_foreign(folder.name) and component is None:
        raise ValueError(f"{folder}: {folder.name!r} names no component; pass subject= to look it up, or component=")
    if HOOK.fullmatch(folder.name):
        raise ValueError(f"{folder}: {folder.name!r} is a hook point of transformer_lens; pass subject= to look it up")
    if component is None:
        return _built(parts, Site(owner, path) if dot else None, folder, None)
    inside = path if dot and owner == component else folder.name
    if parts.hook is not None or BEGINS_WITH_LAYER.match(inside) or folder.parent != root:
        told = inside if parts.hook is None else parts.hook
        raise ValueError(
            f"{folder}: {told!r} doesn't say what stands before it in {component!r}, so nobody knows which site it is; pass "
            "subject= to look it up"
        )
    return _built(parts, Site(component, inside), folder, None)


def _placed(parts: Parts, folder: Path, subject: Subject, component: str | None, root: Path | None = None) -> Site:
    """Where an autoencoder belongs in a subject: what the file says, and what the folder is called, or one of those
    between it and `root`: the nearest that the subject has a place for.

    ValueError where file and folder both name places of the subject and differ.
    """
    above = folder.relative_to(root).parts[-2::-1] if root is not None else ()
    by_file = None if parts.hook is None else site_named(parts.hook, subject, component)
    by_folder, unknown = None, None
    for name in (folder.name, *(above if by_file is None else ())):
        try:
            by_folder = site_named(name, subject, component)
            break
        except LookupError as error:
            unknown = unknown or error
    if by_folder is None and unknown is not None and by_file is None:
        raise unknown
    if by_file is not None and by_folder is not None and by_file != by_folder:
        raise ValueError(
            f"{folder}: the file says {parts.hook!r}, which is {by_file}, and the folder's name means {by_folder}; pass site="
        )
    if parts.layer_of is not None and by_file is None:
        warnings.warn(f"{folder}: {parts.layer_of}; it is taken for {by_folder}", stacklevel=4)
    site = by_file or by_folder
    assert site is not None, "one of the two was found"
    return replace(site, side="change") if parts.reads == "change" and site.side == "out" else site


def _check_asked(parts: Parts, site: Site, folder: Path, subject: Subject) -> None:
    """ValueError where a site is asked for and the file names another place of the subject."""
    subject.module(site)
    if parts.hook is None:
        return
    try:
        told = site_named(parts.hook, subject)
    except (LookupError, ValueError):
        return  # a name that says nothing here contradicts nothing
    if not same_tensor(told, site, subject):
        raise ValueError(
            f"{folder}: the file says {parts.hook!r}, which is {told} of {subject.name}, and site {site} was asked for; leave "
            "site= out, or load it without subject= where you know better than the file"
        )


def _built(parts: Parts, site: Site | None, folder: Path, subject: Subject | None) -> Sae:
    sae = parts.build(site, str(folder))
    if subject is None:
        warn_of_processing(sae.made_by, str(folder))
        return sae
    subject.module(sae.site)
    check_width(sae, subject, str(folder))
    check_belongs(sae, subject)
    return sae


def _fits(folder: Path) -> bool:
    return any(form.found(folder) for form in FORMATS.values())


def _looked_for() -> str:
    return ", ".join(
        f"{name} ({form.weights if form.config is None else f'{form.config} and {form.weights}'})"
        for name, form in FORMATS.items()
    )


def _candidates(folder: Path) -> dict[str, tuple[Path | None, Path]]:
    """Formats whose files are in `folder`, with those files. FileNotFoundError where there are none."""
    if found := {name: files for name, form in FORMATS.items() if (files := form.found(folder)) is not None}:
        return found
    inside = sorted(folder.glob("*")) if folder.is_dir() else []
    for path in inside:
        refuse_pickle(path)
    held = ", ".join(p.name + ("/" if p.is_dir() else "") for p in inside[:8]) or "nothing"
    below = [p.name for p in inside if p.is_dir() and _fits(p)]
    hint = f"; load_saes reads the {len(below)} in its sub-folders, load_sae({below[0]!r}) one" if below else ""
    missing = "" if folder.is_dir() else " (there is no such folder)"
    raise FileNotFoundError(f"no autoencoder in {folder}{missing}: looked for {_looked_for()}; found {held}{hint}")


def parts_in(folder: Path) -> Parts:
    """What the folder holds, in our convention. Errors as of `load_sae`."""
    candidates = _candidates(folder)
    # The files of the first are read: those of sae-lens, where a folder has these and others.
    config_path, weights_path = next(iter(candidates.values()))
    config = {} if config_path is None else read_json(config_path, MEND)
    if config_path is not None and (written := ours_of(config).get("sha256")) is not None:
        check_file(weights_path, written, config_path.name, MEND)
    npz = weights_path.suffix == ".npz"
    tensors, metadata = (read_arrays(weights_path, MEND), {}) if npz else read_tensors(weights_path, MEND)
    broken = None if config_path is None else broken_seal(config, metadata)
    if config_path is None or broken is None:
        return _parts(folder, candidates, config, tensors)
    try:
        _parts(folder, candidates, config, tensors)
    except UnknownName:
        raise
    except Exception as error:  # an altered configuration fails wherever its reader stumbles
        raise CorruptFile(config_path, f"altered since it was written ({error})", MEND) from None
    raise CorruptFile(config_path, broken, MEND)


def _parts(
    folder: Path,
    candidates: Mapping[str, tuple[Path | None, Path]],
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
) -> Parts:
    """What a configuration and its tensors say together."""
    config_path, weights_path = next(iter(candidates.values()))
    if (name := finite(tensors)) is not None:
        raise CorruptFile(weights_path, f"{name} holds NaN or infinity", MEND)
    for name, x in tensors.items():
        if x.is_complex() or (x.ndim > 1 and not x.is_floating_point()):
            raise ValueError(
                f"{weights_path}: {name} is of {x.dtype}; weights are floating-point numbers, so the file is quantised, or not "
                "what it is called; nothing was loaded"
            )
    names = frozenset(tensors)
    same = [name for name, files in candidates.items() if files == (config_path, weights_path)]
    told = [name for name in same if FORMATS[name].tells(names, Keys(config, str(folder)))]
    if len(told) != 1:
        held = ", ".join(sorted(names))
        what = (
            f"both {' and '.join(told)}" if told else "none of " + "; ".join(f"{n} ({FORMATS[n].needs})" for n in same)
        )
        raise ValueError(
            f"{folder}: by its tensors ({held}) and its configuration ({', '.join(sorted(config)) or 'none'}) it is {what}; "
            "nothing was loaded"
        )
    return FORMATS[told[0]].read(Checkpoint(Keys(config, str(folder)), tensors, str(folder), folder))
