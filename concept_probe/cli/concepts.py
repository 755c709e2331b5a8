"""Concepts from a name, and what is wrong with a concept's file, from the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from concept_probe.cli.common import plain_errors, writable
from concept_probe.cli.console import bold, err, out

if TYPE_CHECKING:
    from concept_probe.concepts.kits import Fault
    from concept_probe.types import Concept

MOST_ROWS = 5
"""Faults of one check that the table shows."""

concept_app = typer.Typer(no_args_is_help=True, help="Write a whole concept from its name, or check a concept's file.")


@concept_app.command("new")
def new_concept(
    name: Annotated[
        str, typer.Argument(help="What the concept is called: golden retriever, Van Gogh, Venice, astronomy.")
    ],
    kind: Annotated[str, typer.Option(help="object, style, person, place, or topic (for language models).")] = "object",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON file. Default: the name.")] = None,
    sense: Annotated[
        int | None, typer.Option(min=1, help="Which sense of the word, by its number in the lexical database.")
    ] = None,
    describe: Annotated[
        list[str] | None, typer.Option(help="What it is, without its name; may be repeated. Default: its definition.")
    ] = None,
    like: Annotated[
        str | None, typer.Option(help="Something known that is near to it, for a name that isn't known.")
    ] = None,
) -> None:
    """Write a whole concept: target, paraphrases, implicit, neighbours, anchor and unrelated, each in three splits.

    Example: `concept-probe concept new "golden retriever" --kind object --output kit.json`
    """
    with plain_errors():
        from concept_probe.concepts.files import save_concept
        from concept_probe.concepts.kits import KIT_KINDS, new_kit
        from concept_probe.registry import look_up

        chosen = look_up(dict(zip(KIT_KINDS, KIT_KINDS, strict=True)), kind, "kind of kit")
        place = output if output is not None else Path(_file_name(name))
        writable(place.parent, files=(place.name,))
        kit = new_kit(name, chosen, sense=sense, describe=describe or (), like=like)
        for note in kit.notes:
            err.print(note, soft_wrap=True)
        save_concept(kit.concept, place)
        err.print(_summary(kit.concept), soft_wrap=True)
        err.print(f"concept {kit.concept.name!r} in {place}; look through it, it may be edited", soft_wrap=True)


@concept_app.command("collection")
def new_collection(
    name: Annotated[str, typer.Argument(help="imagenette, unlearncanvas or artists.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write into.")] = Path("kits"),
) -> None:
    """Write a whole concept of every name that a published comparison uses, one file each.

    Example: `concept-probe concept collection imagenette --output kits`
    """
    with plain_errors():
        from concept_probe.concepts.files import save_concept
        from concept_probe.concepts.kits import collection

        writable(output)
        kits = collection(name)
        output.mkdir(parents=True, exist_ok=True)
        for each, kit in kits.items():
            save_concept(kit.concept, output / _file_name(each))
            for note in kit.notes:
                err.print(note, soft_wrap=True)
        err.print(f"{len(kits)} concepts in {output}", soft_wrap=True)


@concept_app.command("table")
def table_concept(
    table: Annotated[Path, typer.Argument(help="A .csv, .tsv or .jsonl of prompts, with what each shows.")],
    name: Annotated[str, typer.Argument(help="What the concept is called there: an artist, a class.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON file. Default: the name.")] = None,
) -> None:
    """Write the concept that a published table of prompts is on: its rows the target, others neighbours.

    Example: `concept-probe concept table big_artist_prompts.csv "Vincent van Gogh" --output van-gogh.json`
    """
    with plain_errors():
        from concept_probe.concepts.files import save_concept
        from concept_probe.concepts.tables import concept_of_table

        place = output if output is not None else Path(_file_name(name))
        writable(place.parent, files=(place.name,))
        found = concept_of_table(table, name)
        save_concept(found, place)
        counts = ", ".join(
            f"{len(list(getattr(found, kind)))} {kind}" for kind in ("target", "neighbours", "unrelated")
        )
        err.print(f"concept {name!r} in {place}: {counts}; look through it, it may be edited", soft_wrap=True)


def _file_name(name: str) -> str:
    """Lower-case words with hyphens, and no sign that a folder's path has a meaning for."""
    return "-".join(re.findall(r"\w+", name.lower())) + ".json"


def _summary(concept: Concept) -> str:
    """What lies around a concept, by name."""
    near = dict.fromkeys(p.subject for p in concept.neighbours if p.subject)
    anchor = next((p.text for p in concept.anchor), "nothing")
    return f"neighbours: {', '.join(near)}; led to: {anchor!r}"


@concept_app.command("check")
def check_concept(
    kit: Annotated[Path, typer.Argument(help="A concept's JSON file.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="A model whose tokenizer has to read every word of it.")
    ] = None,
    recogniser: Annotated[
        str | None, typer.Option(help="A recogniser that has to have its labels; see `info recognisers`.")
    ] = None,
    least: Annotated[int, typer.Option(min=1, help="Prompts that each kind and split should have.")] = 12,
) -> None:
    """Say all that is wrong with a concept's file, in one table; exits with status 1 where something is.

    Example: `concept-probe concept check kit.json --model emoji --recogniser emoji`
    """
    with plain_errors():
        from concept_probe.concepts.files import read_draft
        from concept_probe.concepts.kits import check_kit

        concept = read_draft(kit)
        reader, tokenizers = (None, None) if model is None else _read_by(model)
        labels = None if recogniser is None else _labels_of(recogniser, concept)
        faults = check_kit(concept, reader=reader, tokenizers=tokenizers, labels=labels, least=least)
        out.print(_table(faults, f"{kit.name}: {concept.name}", model is not None, labels is not None))
        if faults:
            raise typer.Exit(1)


def _read_by(model: str) -> tuple[Any, Mapping[str, Any]]:
    """A model, and its tokenizers by name."""
    from concept_probe.families import load

    subject = load(model)
    own = getattr(subject, "tokenizer", None)
    return subject, subject.tokenizers or ({model: own} if own is not None else {})


def _labels_of(recogniser: str, concept: Concept) -> tuple[str, ...]:
    from concept_probe import detect
    from concept_probe.detect.naming import labels_in

    return tuple(detect.recogniser(recogniser, labels_in(concept)).labels)


def _table(faults: tuple[Fault, ...], title: str, read: bool, seen: bool) -> Table:
    from concept_probe.concepts.kits.check import CHECKS, OF_MODEL, OF_RECOGNISER

    table = Table("check", "where", "what was found", title=title, title_justify="left")
    for check in CHECKS:
        own = [f for f in faults if f.check == check]
        if check in OF_MODEL and not read:
            table.add_row(check, "", "not looked at: give --model")
        elif check in OF_RECOGNISER and not seen:
            table.add_row(check, "", "not looked at: give --recogniser")
        elif not own:
            table.add_row(check, "", "as it should be")
        for fault in own[:MOST_ROWS]:
            table.add_row(bold(check), fault.where, fault.found)
        if len(own) > MOST_ROWS:
            table.add_row(bold(check), "", f"and {len(own) - MOST_ROWS} more")
    return table
