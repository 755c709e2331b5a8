"""What there is: models, concepts, methods, roles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from concept_probe.cli.common import plain_errors
from concept_probe.cli.console import out
from concept_probe.registry import Registry

TOPICS = (
    *("models", "concepts", "erasers", "attacks", "recognisers", "families", "saes", "roles", "published", "forms"),
    *("removals", "behaviours", "summaries"),
)


def info(
    topic: Annotated[str, typer.Argument(help=f"One of {', '.join(TOPICS)}.")] = "models",
    model: Annotated[
        str, typer.Option("--model", "-m", help="For roles and concepts: the model to look into.")
    ] = "emoji",
) -> None:
    """List what there is.

    Examples: `concept-probe info erasers`, `concept-probe info roles --model emoji`
    """
    with plain_errors():
        from concept_probe.registry import UnknownName

        if topic not in TOPICS:
            raise UnknownName("topic", topic, TOPICS)
        shown = {
            **{"models": _models, "concepts": lambda: _concepts(model), "erasers": _erasers, "attacks": _attacks},
            **{"recognisers": _recognisers, "families": _families, "saes": _saes, "forms": _forms},
            **{"published": _published, "roles": lambda: _roles(model), "removals": _removals},
            **{"behaviours": _behaviours, "summaries": _summaries},
        }
        out.print(shown[topic]())


def _models() -> Table:
    from concept_probe import testbed

    table = Table("model", "what it is", "twin")
    for name, about in testbed.EMBEDDED.items():
        table.add_row(name, about, testbed.TWINS.get(name, ""))
    for name, about in testbed.LANGUAGE_MODELS.items():
        table.add_row(name, about, "")
    return table


def _concepts(model: str) -> Table:
    from concept_probe import testbed
    from concept_probe.registry import look_up

    look_up(
        {**testbed.EMBEDDED, **testbed.LANGUAGE_MODELS}, model, "model with concepts", "for others write a concept file"
    )
    return _facts() if model in testbed.LANGUAGE_MODELS else _objects()


def _facts() -> Table:
    from concept_probe.testbed.facts import topics

    table = Table("domain", "concept", "facts", "for example")
    for topic in topics():
        table.add_row(topic.domain, topic.name, str(len(topic.facts)), topic.facts[0].question)
    return table


def _objects() -> Table:
    from concept_probe.testbed.vocabulary import REMOVED_OBJECTS, REMOVED_STYLE, STYLES, objects

    table = Table("group", "concepts (bold: the twin was never taught)")
    groups = dict.fromkeys(o.group for o in objects())

    def shown(names):
        untaught = (*REMOVED_OBJECTS, REMOVED_STYLE)
        return Text(", ").join(Text(n, style="bold" if n in untaught else "") for n in names)

    for group in groups:
        table.add_row(group, shown(o.name for o in objects() if o.group == group))
    table.add_row("styles", shown(STYLES))
    return table


def _first_line(thing: Any) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0]


def _by_package(registry: Registry[Any], heads: tuple[str, ...], row: Callable[[Any], tuple[str, ...]]) -> Group:
    """A table for every package that a registry has something from, this one first."""
    packages = dict.fromkeys(map(registry.package, registry))
    tables = []
    for package in packages:
        table = Table(*heads, title=f"from {package}", title_justify="left")
        for name, thing in registry.items():
            if registry.package(name) == package:
                table.add_row(name, *row(thing))
        tables.append(table)
    return Group(*tables)


def _erasers() -> Group:
    from concept_probe.erasers import ERASERS

    def row(kind: Any) -> tuple[str, ...]:
        return kind.makes, kind.on, ", ".join(kind.needs.words()), _first_line(kind)

    return _by_package(ERASERS, ("eraser", "makes", "on", "needs", "what it does"), row)


def _published() -> Table:
    from concept_probe.erasers import ERASERS

    table = Table(
        "eraser", "published settings, where they are not the defaults", "what of them no option gives", "read in"
    )
    for name, kind in ERASERS.items():
        if kind.authors is not None:
            table.add_row(name, kind.authors.words(), kind.authors.apart, kind.authors.read_in)
    return table


def _attacks() -> Group:
    from concept_probe.attacks import ATTACKS

    def row(kind: Any) -> tuple[str, ...]:
        return kind.on, "examples" if kind.needs_examples else "", _first_line(kind)

    return _by_package(ATTACKS, ("attack", "on", "needs", "what it does"), row)


def _removals() -> Group:
    from concept_probe.find.removals import REMOVALS

    def row(kind: Any) -> tuple[str, ...]:
        return kind.reads, ", ".join(kind.on) or "no", _first_line(kind)

    return _by_package(REMOVALS, ("removal", "looks at", "in weights", "what stands in its place"), row)


def _behaviours() -> Group:
    from concept_probe.find.attribution import BEHAVIOURS

    def row(kind: Any) -> tuple[str, ...]:
        return kind.on, kind.unit, "yes" if kind.smooth else "no", _first_line(kind)

    return _by_package(BEHAVIOURS, ("behaviour", "on", "unit", "slope", "what it is"), row)


def _summaries() -> Group:
    from concept_probe.find.attribution import SUMMARIES

    def row(kind: Any) -> tuple[str, ...]:
        return kind.of, "yes" if kind.efficient else "no", _first_line(kind)

    return _by_package(SUMMARIES, ("summary", "of", "adds up", "what it is"), row)


def _recognisers() -> Group:
    from concept_probe.detect import EXTRAS, RECOGNISERS

    def row(make: Any) -> tuple[str, ...]:
        found = make()
        return found.version, str(len(found.labels) - 1)

    others = Table("recogniser", "how to get it", title="for the asking", title_justify="left")
    for name, extra in EXTRAS.items():
        others.add_row(name, f"pip install 'concept-probe[{extra}]'")
    others.add_row("clip:FOLDER", "zero-shot: the labels of the concept's prompts")
    others.add_row("FOLDER", "learned prompts that were saved, or a CLIP pair")
    others.add_row("module:object", "a recogniser of your own, or what makes one")
    return Group(_by_package(RECOGNISERS, ("recogniser", "version", "labels"), row), others)


def _families() -> Group:
    from concept_probe.families import FAMILIES

    return _by_package(
        FAMILIES, ("what is loaded", "answers with", "as"), lambda kind: (kind.answers, _first_line(kind))
    )


def _saes() -> Table:
    from concept_probe.learn import checkpoint_folder, load_sae

    table = Table("checkpoint", "site", "features", "k")
    for config in sorted(checkpoint_folder().glob("*/*/cfg.json")):
        sae = load_sae(config.parent)
        table.add_row("/".join(config.parts[-3:-1]), str(sae.site), f"{sae.width:,}", str(sae.k))
    return table


def _roles(model: str) -> Table:
    from concept_probe.families import load

    subject = load(model)
    table = Table("role", "sites", "captured", "first", title=f"{model} ({subject.family})")
    for role in subject.roles():
        sites = subject.sites(role)
        captured = "no: weights" if any(site.side == "weight" for site in sites) else "yes"
        table.add_row(role, str(len(sites)), captured, str(sites[0]))
    return table


def _forms() -> Group:
    from concept_probe.erasers.interop import EDIT_FORMS

    def row(form: Any) -> tuple[str, ...]:
        return form.what, ", ".join(form.read), ", ".join(form.holds) or "not written", form.for_whom

    return _by_package(EDIT_FORMS, ("form", "what it is", "reads", "writes", "of whom"), row)
