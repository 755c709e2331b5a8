"""What the verbs share: options, loading by name, and errors in one line."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from concept_probe.families import Subject
    from concept_probe.learn import Sae
    from concept_probe.types import Concept, Recogniser

err = Console(stderr=True)
out = Console()

ConceptName = Annotated[
    str, typer.Argument(help="A concept of the embedded models (see `info`), or any name with --concept-file.")
]
Model = Annotated[str, typer.Option("--model", "-m", help="An embedded model, a diffusers id, or a folder.")]
ConceptFile = Annotated[Path | None, typer.Option(help="JSON file with the concept's prompts, for models of your own.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to write into.")]
Saes = Annotated[
    list[Path] | None,
    typer.Option("--sae", help="Folder of an autoencoder; may be repeated. Default: the shipped ones."),
]
RecogniserName = Annotated[str | None, typer.Option(help="A recogniser's name, or clip:FOLDER for zero-shot naming.")]
Seed = Annotated[int, typer.Option(help="Seed of everything that is drawn.")]


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """What the library refuses is said in one line, with exit code 2; an interruption exits with 130."""
    try:
        yield
    except (ValueError, LookupError, OSError, RuntimeError, FloatingPointError, TypeError) as error:
        err.print(f"[bold red]error:[/] {escape(str(error) or type(error).__name__)}", soft_wrap=True, highlight=False)
        raise typer.Exit(2) from error
    except KeyboardInterrupt:
        err.print("interrupted; what was finished is kept, and the same command goes on from there")
        raise typer.Exit(130) from None


def subject_of(model: str) -> Subject:
    from concept_probe.families import load

    return load(model)


def concept_of(name: str, file: Path | None) -> Concept:
    from concept_probe.concepts import concept, load_concept

    if file is None:
        return concept(name)
    found = load_concept(file)
    if found.name != name:
        raise ValueError(f"concept file {file} is about {found.name!r}, not {name!r}")
    return found


def recogniser_of(name: str | None, concept: Concept) -> Recogniser:
    """The named recogniser; by default the one that has the concept's label."""
    from concept_probe import detect

    if name is None:
        label = next((p.label for p in concept.target if p.label), concept.name)
        return detect.recogniser_for(label)
    if name.startswith("clip:"):
        from concept_probe.detect.clip import zero_shot
        from concept_probe.types import KINDS

        labels = [p.label for kind in KINDS for p in getattr(concept, kind) if p.label]
        return zero_shot(Path(name.removeprefix("clip:")), labels)
    return detect.recogniser(name)


def saes_of(folders: Sequence[Path] | None, subject: Subject) -> tuple[Sae, ...]:
    from concept_probe.learn import load_sae, shipped_saes

    return tuple(load_sae(folder) for folder in folders) if folders else shipped_saes(subject.name)


def twin_of(name: str | None, model: str, concept: Concept) -> str | None:
    """The never-taught twin by name; embedded models have one for the concepts that it was not taught."""
    from concept_probe import testbed
    from concept_probe.testbed.vocabulary import REMOVED_OBJECTS, REMOVED_STYLE

    if name is not None:
        return None if name == "none" else name
    untaught = concept.name in (*REMOVED_OBJECTS, REMOVED_STYLE)
    return testbed.TWINS.get(model) if untaught else None


def command() -> str:
    return shlex.join(["concept-probe", *sys.argv[1:]])
