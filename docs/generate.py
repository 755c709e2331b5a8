"""The reference, made from the code: one page per room, tables of every registry, and the command line.

`mkdocs` calls it (see `hooks` in mkdocs.yml); `python docs/generate.py FOLDER` writes the same pages as files. Signatures,
options and their meaning are read from the source by griffe; methods of other packages that are installed are there too.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import griffe

sys.path.insert(0, str(Path(__file__).parent))
from source_text import cell, entry, first, is_public, prose, prose_of

ROOT = Path(__file__).parents[1]
ROOMS = (
    "types", "registry", "storage", "concepts", "families", "activations", "evaluation", "learn", "find", "erasers",
    "attacks", "detect", "auditing", "bench", "figures", "report", "testbed", "testing",
)  # fmt: skip
"""In the order in which they are listed; a room of the package that is not here comes behind them."""
LEFT_OUT = {"__main__", "cli"}
SOURCE = re.compile(r"arXiv (\d{4}\.\d{4,5})")


def pages() -> dict[str, str]:
    """Every page by its place below docs/: one per room, one per sub-room in a folder beside it."""
    package, tables = (
        parsed("concept_probe"),
        {"erasers": erasers, "attacks": attacks, "detect": recognisers, "families": families},
    )
    out = {"reference/index.md": index(package)}
    for name in rooms(package):
        room = package.modules[name]
        made = tables[name]() if name in tables else ""
        out[f"reference/{name}.md"] = room_page(room, made)
        out |= {f"reference/{name}/{m.name}.md": room_page(m) for m in room.modules.values() if is_room(m)}
    out["reference/cli.md"] = command_line()
    return out


def rooms(package: griffe.Module) -> list[str]:
    found = {name for name, one in package.modules.items() if not one.is_alias} - LEFT_OUT
    return sorted(found, key=lambda r: (ROOMS.index(r) if r in ROOMS else len(ROOMS), r))


def is_room(module: griffe.Module) -> bool:
    return not module.is_alias and module.is_init_module and not module.name.startswith("_")


@cache
def parsed(package: str) -> griffe.Module:
    found = griffe.load(package, search_paths=[str(ROOT), *sys.path], resolve_aliases=False)
    assert isinstance(found, griffe.Module)
    return found


def index(package: griffe.Module) -> str:
    lines = [f"| [{r}]({r}.md) | {first(package.modules[r].docstring)} |" for r in rooms(package)]
    head = (
        "# Reference\n\nMade from the code, rooms in the order in which a reader meets them; [how they hang together]"
    )
    table = "\n".join([*lines, "| [command line](cli.md) | One verb per step, and `run` for all of them. |"])
    return f"{head}(../architecture.md).\n\n| room | what it is |\n|---|---|\n{table}\n"


# -- what is defined ------------------------------------------------------------------------------------------------


def from_others(registry: Any) -> str:
    """What installed packages add to a registry, with its options."""
    shown = []
    for name in registry.added:
        kind = registry[name]
        where = griffe.load(kind.__module__.partition(".")[0], search_paths=sys.path, resolve_aliases=False)
        path = f"{kind.__module__}.{kind.__qualname__}".partition(".")[2]
        shown.append(f"{entry(where[path], set())}\n\n*{name}*, from {registry.package(name)}.")
    return "## From other packages\n\n" + "\n\n".join(shown) if shown else ""


def room_page(room: griffe.Module, made: str = "") -> str:
    """A room: what it promises, where its sub-rooms are, then every public name of its files, exported ones marked."""
    exported = {str(name).strip("'\"") for name in room.exports or ()}
    inside = [
        f"| [{m.name}]({room.name}/{m.name}.md) | {first(m.docstring)} |" for m in room.modules.values() if is_room(m)
    ]
    parts = [f"# {room.path.removeprefix('concept_probe.')}", prose(room.docstring), made]
    parts += (
        ["| room | what it is |\n|---|---|\n" + "\n".join(inside)]
        if inside and room.parent is parsed("concept_probe")
        else []
    )
    for module in files(room):
        shown = [entry(one, exported) for one in module.members.values() if is_public(one)]
        if shown and module is not room:
            parts += [f"## {module.name}", prose(module.docstring)]
        parts += shown
    return "\n\n".join(part for part in parts if part) + "\n"


def files(room: griffe.Module) -> Iterator[griffe.Module]:
    """The room and its own files; rooms inside a sub-room are told with it."""
    yield room
    inside = sorted(
        (m for m in room.modules.values() if not m.is_alias and not m.name.startswith("_")), key=lambda m: m.name
    )
    for module in inside:
        if not is_room(module):
            yield module
        elif room.parent is not parsed("concept_probe"):
            yield from files(module)


# -- tables of registries -------------------------------------------------------------------------------------------


def erasers() -> str:
    from concept_probe.erasers import ERASERS

    heads = ("eraser", "what it does", "makes", "on", "works on", "whose", "source", "from")
    rows = []
    for name, kind in ERASERS.items():
        needs = ", ".join(kind.needs.words())
        rows.append(
            (f"`{name}`", about(kind), kind.makes, kind.on, needs, kind.origin, source(kind), ERASERS.package(name))
        )
    return f"{table(heads, rows)}\n\n{published()}\n\n{from_others(ERASERS)}"


def published() -> str:
    """The settings of those who published each method."""
    from concept_probe.erasers import ERASERS

    told = "`published()` of an eraser, and `--published` on the command line, take the settings of those who published it."
    heads = ("eraser", "where they are not the defaults", "what of them no option gives", "read in")
    kinds = {name: kind.authors for name, kind in ERASERS.items() if kind.authors is not None}
    rows = [
        (f"`{name}`", f"`{a.words()}`" if a.options else a.words(), a.apart, a.read_in) for name, a in kinds.items()
    ]
    return f"## Published settings\n\n{told}\n\n{table(heads, rows)}"


def attacks() -> str:
    from concept_probe.attacks import ATTACKS

    heads = ("attack", "what it does", "on", "brings knowledge", "needs examples", "source", "from")
    rows = [
        (
            f"`{name}`",
            about(kind),
            kind.on,
            yes(kind.brings),
            yes(kind.needs_examples),
            source(kind),
            ATTACKS.package(name),
        )
        for name, kind in ATTACKS.items()
    ]
    return f"{table(heads, rows)}\n\n{from_others(ATTACKS)}"


def recognisers() -> str:
    from concept_probe.detect import RECOGNISERS

    return table(("recogniser", "from"), [(f"`{name}`", RECOGNISERS.package(name)) for name in RECOGNISERS])


def families() -> str:
    from concept_probe.families import FAMILIES

    rows = [(f"`{name}`", about(kind), kind.answers, FAMILIES.package(name)) for name, kind in FAMILIES.items()]
    return f"{table(('what is loaded', 'as', 'answers with', 'from'), rows)}\n\n{from_others(FAMILIES)}"


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *(tuple(map(cell, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def about(kind: Any) -> str:
    """The first sentence of what a class says of itself."""
    return re.split(r"(?<=[.:;])\s", " ".join((kind.__doc__ or "").split()), maxsplit=1)[0].rstrip(":;")


def source(kind: Any) -> str:
    """The paper that a method's file names."""
    module = sys.modules[kind.__module__].__doc__ or ""
    found = SOURCE.search(module) or SOURCE.search(kind.__doc__ or "")
    return f"[{found[1]}](https://arxiv.org/abs/{found[1]})" if found else ""


def yes(flag: bool) -> str:
    return "yes" if flag else ""


# -- the command line -----------------------------------------------------------------------------------------------


def command_line() -> str:
    import typer

    from concept_probe.cli import app

    group = typer.main.get_command(app)
    context = typer.Context(group, info_name="concept-probe")
    parts = ["# Command line", prose_of(group.help or "")]
    for name in group.list_commands(context):  # pyright: ignore[reportAttributeAccessIssue]
        verb = group.get_command(context, name)  # pyright: ignore[reportAttributeAccessIssue]
        rows = []
        for one in verb.params:
            given = (
                one.name.upper() if one.param_type_name == "argument" else ", ".join((*one.opts, *one.secondary_opts))
            )
            default = one.default if not callable(one.default) and one.default not in (None, False, ()) else ""
            rows.append((f"`{given}`", f"`{default}`" if default != "" else "", getattr(one, "help", None) or ""))
        parts += [f"## {name}", prose_of(verb.help or ""), table(("option", "default", "meaning"), rows)]
    return "\n\n".join(parts) + "\n"


# -- mkdocs ---------------------------------------------------------------------------------------------------------


def on_config(config: Any) -> Any:
    """List the pages behind the hand-written ones."""
    package = parsed("concept_probe")
    listed: list[Any] = ["reference/index.md", {"command line": "reference/cli.md"}]
    for name in rooms(package):
        inside = [f"reference/{name}/{m.name}.md" for m in package.modules[name].modules.values() if is_room(m)]
        listed.append({name: [f"reference/{name}.md", *inside]} if inside else {name: f"reference/{name}.md"})
    config["nav"].append({"Reference": listed})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Give mkdocs the pages that no folder holds."""
    from mkdocs.structure.files import File

    for place, made in pages().items():
        files.append(File.generated(config, place, content=made))
    return files


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for place, made in pages().items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(made, encoding="utf-8")
