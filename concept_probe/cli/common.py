"""What the verbs share: options, loading by name, and errors in one line."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from concept_probe.cli.console import err, say
from concept_probe.registry import UnknownName
from concept_probe.signals import INTERRUPTED, was_told
from concept_probe.storage.folders import refuse_another_thing
from concept_probe.threads import use_threads

if TYPE_CHECKING:
    from concept_probe.families import Subject
    from concept_probe.types import Concept

ConceptName = Annotated[
    str, typer.Argument(help="A concept of the embedded models (see `info`), or any name with --concept-file.")
]
Model = Annotated[
    str, typer.Option("--model", "-m", help="A model by name (see `info models`), a hub id, a folder, or a GGUF file.")
]
ConceptFile = Annotated[Path | None, typer.Option(help="JSON file with the concept's prompts, for models of your own.")]
PromptFile = Annotated[
    Path | None,
    typer.Option(
        help="Text file with one prompt a line, or a table (.csv, .tsv, .jsonl) with a column `prompt` and perhaps each "
        "prompt's own seed and guidance. Default: the embedded prompts."
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to write into.")]
Saes = Annotated[
    list[str] | None,
    typer.Option(
        "--sae",
        help="An autoencoder: its folder, module:object, or a name whose autoencoders are known; may be repeated. "
        "Default: the shipped ones.",
    ),
]
RecogniserName = Annotated[
    str | None,
    typer.Option(
        help="Who judges pictures: a name (see `info recognisers`), clip:FOLDER (or a hub id) for zero-shot naming, a "
        "folder, or module:object. Default: the one that was made for the model's pictures."
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of everything that is drawn.")]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        callback=use_threads,
        help="Threads of torch. Default: as many as torch takes; on a busy machine one is often quicker.",
    ),
]
ChoiceImages = Annotated[
    int | None,
    typer.Option(
        "--choice-images",
        min=1,
        help="Answers for the concept in one measurement of what is chosen; fewer are quicker.",
    ),
]
ChoiceSteps = Annotated[
    int | None,
    typer.Option(
        "--choice-steps", min=1, help="Denoising steps of the pictures that a choice is made by. Default: 15."
    ),
]
PicturesPerPrompt = Annotated[int, typer.Option("--seeds", min=1, help="Pictures, or drawn texts, per prompt.")]


DEBUG = "CONCEPT_PROBE_DEBUG"
"""An environment variable; set to anything, errors keep their tracebacks."""
EXPECTED = (ValueError, LookupError, OSError, RuntimeError, FloatingPointError, TypeError, MemoryError, ImportError)
"""What the library refuses with; anything else is named with its class, since it may be a fault of ours."""


NO_ROOM = {
    errno.ENOSPC: ("the disk is full", "Make room"),
    errno.EDQUOT: ("your share of the disk is full", "Make room"),
    errno.EFBIG: ("the file is larger than this file system or `ulimit -f` allows", "Raise the limit"),
    errno.EROFS: ("the file system can only be read", "Have it mounted for writing"),
}
"""Errors of a disk that takes no more: why, and the mend."""


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """What is refused, or fails, is said in one line, with exit code 2; `CONCEPT_PROBE_DEBUG=1` shows the traceback."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _say_warning
            yield
    except KeyboardInterrupt:
        if not was_told():
            err.print(INTERRUPTED, soft_wrap=True)
        raise typer.Exit(130) from None
    except typer.Exit:  # a RuntimeError that already says how to exit
        raise
    except Exception as error:  # whatever a library raises, a person reads one line
        if os.environ.get(DEBUG):
            raise
        say("error", "bold red", _told(error))
        raise typer.Exit(2) from error


def _told(error: Exception) -> str:
    """An error in words: its own where it is one of ours, and what can be done about it where it isn't."""
    said = str(error).strip()
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        why, mend = NO_ROOM[error.errno]
        return f"{said}: {why}; nothing is half-written. {mend}, or give another --output, and repeat"
    ours = isinstance(error, EXPECTED) and not (isinstance(error, KeyError) and not isinstance(error, UnknownName))
    if ours and said:
        return said
    return f"{type(error).__name__}: {said or 'no more was said'}; {DEBUG}=1 shows where"


def _say_warning(message: Warning | str, *_: object) -> None:
    """A warning as one line, without the source that raised it."""
    say("warning", "yellow", message)


def writable(folder: Path | None, what: str = "", files: Sequence[str] = ()) -> None:
    """Raise, before hours are spent, where `what` (of `FOLDER_MARKS`) could not be written into `folder`.

    OSError for a place that takes no files, or has a folder where one of `files` is to be (a file, where the name ends in
    a slash); WrongFile for another thing's.
    """
    if folder is None:
        return
    there = folder.absolute()
    while not there.exists():
        if there.is_symlink():
            raise OSError(f"--output {folder}: {there} is a link to a place that isn't there; give another folder")
        there = there.parent
    for name in files:
        place, wanted = folder / name, "folder" if name.endswith("/") else "file"
        if place.exists() and (place.is_dir() if wanted == "file" else not place.is_dir()):
            raise OSError(f"--output {folder}: {place} is to be a {wanted} and is something else; give another folder")
    if what and folder.is_dir():
        refuse_another_thing(folder, what)
    try:
        with tempfile.TemporaryDirectory(prefix=".concept-probe-", dir=there):
            pass
    except OSError as error:
        raise OSError(
            f"--output {folder}: nothing can be written in {there} ({error.strerror}); give another folder"
        ) from None


def concept_of(name: str, file: Path | None, model: str, *, more: bool = False) -> Concept:
    """The concept in `file`, or the named one of the embedded models, as far as `model` has learned its words.

    `more` is for audits in rounds: the named one then has more test prompts.
    """
    from concept_probe import testbed
    from concept_probe.concepts.embedded import concept
    from concept_probe.concepts.files import load_concept

    if file is None:
        from concept_probe.testbed import facts, taught

        if model not in (*testbed.EMBEDDED, *testbed.LANGUAGE_MODELS):  # a checkpoint of one of them, perhaps
            model = "smollm2" if name in (*facts.fact_names(), *taught.invented_names()) else "emoji"
        return concept(name, model, more=more)
    found = load_concept(file)
    if found.name != name:
        raise ValueError(f"concept file {file} is about {found.name!r}, not {name!r}")
    return found


def concept_in(name: str, model: str) -> Concept:
    """A concept by its name, or from its file: what exists as one, or is written as the place of one."""
    from concept_probe.concepts.files import load_concept

    place = Path(name)
    if place.is_file() or place.suffix == ".json" or len(place.parts) > 1:
        return load_concept(place)
    return concept_of(name, None, model)


def recogniser_of(name: str | None, concept: Concept, subject: Subject) -> Any:
    """The named recogniser; by default the concept's gold answers, or who was made for the subject's pictures."""
    from concept_probe import detect

    return detect.judge_for(concept, subject) if name is None else detect.judge_named(name, concept, subject)


def saes_of(names: Sequence[str] | None, subject: Subject) -> tuple[Any, ...]:
    """The named autoencoders, or those that are shipped for the subject."""
    from concept_probe.learn import named_saes, shipped_saes

    return named_saes(names, subject) if names else shipped_saes(subject.name)


def twin_of(name: str | None, model: str, concept: Concept) -> str | None:
    """The never-taught twin by name; embedded models have one for the concepts that it was not taught."""
    from concept_probe import testbed
    from concept_probe.testbed.vocabulary import REMOVED_OBJECTS, REMOVED_STYLE

    if name is not None:
        return None if name == "none" else name
    untaught = concept.name in (*REMOVED_OBJECTS, REMOVED_STYLE)
    return testbed.TWINS.get(model) if untaught else None
