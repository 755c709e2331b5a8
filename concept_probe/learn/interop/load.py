"""Which format a folder is of, and the autoencoder in it."""

from __future__ import annotations

from pathlib import Path

from concept_probe.learn.interop import lens, openai, sparsify
from concept_probe.learn.interop.parts import Checkpoint, Format, finite
from concept_probe.learn.sae import Sae
from concept_probe.storage import CorruptFile, check_file, read_json, read_tensors, refuse_pickle
from concept_probe.types import Site

FORMATS: dict[str, Format] = {
    "sae-lens": lens.SAE_LENS,
    "sparsify": sparsify.SPARSIFY,
    "openai": openai.OPENAI,
}
"""In the order in which a folder is tried."""
MEND = "get the file again, or train again"


def load_sae(folder: str | Path, *, site: Site | None = None) -> Sae:
    """Read an autoencoder that `save_sae`, sae-lens, sparsify or OpenAI's code wrote; the format is told by its files.

    `site` must be given where the folder does not name one, as with every format but our own.

    Raises FileNotFoundError where no format fits (saying what was looked for), CorruptFile for a file
    that was cut or altered (naming it and the check), ValueError for a pickle, another site or width
    (naming both values), or an option that would change the codes.
    """
    folder = Path(folder)
    refuse_pickle(folder)
    return _read(folder, _format(folder), site)


def load_saes(folder: str | Path, *, component: str | None = None) -> dict[str, Sae]:
    """Every autoencoder below `folder`, by the path of its sub-folder: published sets have one per hook point.

    Where a file does not name its site, it is taken from the sub-folder's name, which published sets give
    the module's path: `unet.up_blocks.1.attentions.1` or, with `component` "unet", `up_blocks.1.attentions.1`.
    Raises FileNotFoundError where there is none, and what `load_sae` raises.
    """
    folder = Path(folder)
    places = [p for p in sorted(p for p in folder.rglob("*") if p.is_dir()) if _fits(p)]
    if not places:
        raise FileNotFoundError(f"no sub-folder of {folder} holds an autoencoder; looked for {_looked_for()}")
    return {str(p.relative_to(folder).as_posix()): _read_named(p, component) for p in places}


def _read_named(folder: Path, component: str | None) -> Sae:
    owner, dot, path = folder.name.partition(".")
    if component is None:
        named = Site(owner, path) if dot else None
    else:
        named = Site(component, path if dot and owner == component else folder.name)
    kind = _format(folder)
    own = "site" in lens.ours_of(read_json(folder / FORMATS[kind].config, MEND))
    return _read(folder, kind, None if own else named)


def _fits(folder: Path) -> bool:
    return any(form.found(folder) for form in FORMATS.values())


def _looked_for() -> str:
    return ", ".join(f"{name} ({form.config} and {form.weights})" for name, form in FORMATS.items())


def _format(folder: Path) -> str:
    for name, form in FORMATS.items():
        if form.found(folder):
            return name
    inside = sorted(folder.glob("*")) if folder.is_dir() else []
    for path in inside:
        refuse_pickle(path)
    held = ", ".join(p.name + ("/" if p.is_dir() else "") for p in inside[:8]) or "nothing"
    below = [p.name for p in inside if p.is_dir() and _fits(p)]
    hint = f"; load_saes reads the {len(below)} in its sub-folders, load_sae({below[0]!r}) one" if below else ""
    missing = "" if folder.is_dir() else " (there is no such folder)"
    raise FileNotFoundError(f"no autoencoder in {folder}{missing}: looked for {_looked_for()}; found {held}{hint}")


def _read(folder: Path, kind: str, site: Site | None) -> Sae:
    form = FORMATS[kind]
    files = form.found(folder)
    assert files is not None, "the format was chosen because its files are there"
    config_path, weights_path = files
    config = read_json(config_path, MEND)
    written = lens.ours_of(config).get("sha256")
    if written is not None:
        check_file(weights_path, written, config_path.name, MEND)
    tensors, _ = read_tensors(weights_path, MEND)
    if (name := finite(tensors)) is not None:
        raise CorruptFile(weights_path, f"{name} holds NaN or infinity", MEND)
    return form.read(Checkpoint(config, tensors, str(folder), folder)).build(site, str(folder))
