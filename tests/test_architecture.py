"""What holds the house together: rooms in one order, methods that know no method, short signatures, one home per name."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "concept_probe"
ORDER = (
    "registry", "arguments", "types", "storage", "content", "threads", "signals",
    "testbed", "concepts", "detect", "families", "activations", "evaluation", "learn",
    "find", "erasers", "attacks", "auditing", "bench", "figures", "report", "verification", "cli", "testing", "__main__",
)  # fmt: skip
"""A room imports only rooms before it."""
NARROW = {"figures": {"types", "registry"}, "report": {"types", "registry", "figures", "storage"}}
"""Rooms that read results, never models."""
ALLOWED = {("types", "report")}
"""`Report.show` loads its rendering when it is called."""
HEAVY = {
    "diffusers": ("families", "testbed", "testing", "detect"),
    "transformers": ("families", "testbed", "testing", "detect"),
    "sae_lens": ("learn/interop",),
    "plotly": ("figures",),
    "nudenet": ("detect/nudenet.py",),
    "wandb": (),
    "triton": ("learn/kernels/triton_kernels.py",),
}
"""Library to the only places that import it."""


MOST_FILES, MOST_PARAMETERS, MOST_LINES = 20, 8, 300

KERNELS = "learn/kernels/"
"""Functions there take a kernel's arguments, which are pointers and strides one by one."""
VERBS = "cli/"
"""Functions there are verbs of the command line, whose parameters are its options."""
VERB = "a verb of the command line, called as the function that it calls"
OPERATION = "one operation in torch and in Triton, behind one door"
TWICE: dict[str, str] = {
    "attribute": VERB,
    "audit": VERB,
    "capture": VERB,
    "erase": VERB,
    "verify": VERB,
    "decode_error": OPERATION,
    "row_products": OPERATION,
    "scatter_rows": OPERATION,
    "weighted_rows": OPERATION,
}
"""Name to why more than one module may define it."""


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, path.relative_to(PACKAGE)


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def dotted(path: Path) -> str:
    """The name by which a file is imported."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def room_of(relative: Path) -> str:
    return relative.parts[0].removesuffix(".py")


def imported(path: Path) -> list[tuple[str, int]]:
    """Absolute dotted names that a file imports anywhere, with their lines; `from a import b` gives `a.b`."""
    inside = ("concept_probe", *path.relative_to(PACKAGE).parts[:-1])
    out = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            out += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(inside[: len(inside) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            out += [(".".join([*base, alias.name]), node.lineno) for alias in node.names]
    return out


def test_every_room_has_its_place():
    rooms = {room_of(relative) for _, relative in modules()} - {"__init__"}
    assert rooms <= set(ORDER), f"{rooms - set(ORDER)} has no place in the order"


def test_rooms_import_only_what_stands_before_them():
    wrong = []
    for path, relative in modules():
        room = room_of(relative)
        if room == "__init__":
            continue
        for name, line in imported(path):
            parts = name.split(".")
            if parts[0] != "concept_probe":
                continue
            other = parts[1] if len(parts) > 1 else ""
            if other == room or other not in ORDER or (room, other) in ALLOWED:
                continue
            if ORDER.index(other) > ORDER.index(room) or other not in NARROW.get(room, ORDER):
                wrong.append(f"{relative}:{line} imports {name}: {room} may not know {other}")
    assert not wrong, "\n".join(wrong)


def test_heavy_libraries_stay_where_they_belong():
    wrong = []
    for path, relative in modules():
        for name, line in imported(path):
            library = name.split(".")[0]
            places = HEAVY.get(library)
            if places is not None and not str(relative).startswith(places):
                wrong.append(f"{relative}:{line} imports {library}; only {places} may")
    assert not wrong, "\n".join(wrong)


def test_there_is_no_utils():
    assert not [str(r) for _, r in modules() if r.name == "utils.py"]


@pytest.mark.parametrize("code", ["import concept_probe", "import concept_probe, concept_probe.types"])
def test_importing_the_package_is_silent_and_light(code):
    look = f"{code}; import sys; heavy = {sorted(HEAVY)!r}; print([m for m in heavy if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", look], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]" and done.stderr == ""


def test_the_check_sees_a_wrong_import():
    """The rule above must be able to fail."""
    tree = PACKAGE / "activations" / "capture.py"
    names = {name for name, _ in imported(tree)}
    assert "concept_probe.families.text.tokens.queries_of" in names
    assert ORDER.index("families") < ORDER.index("activations")


@functools.cache
def methods() -> frozenset[str]:
    """Modules that hold what ERASERS and ATTACKS name."""
    from concept_probe.attacks import ATTACKS
    from concept_probe.erasers import ERASERS

    return frozenset(kind.__module__ for kind in (*ERASERS.values(), *ATTACKS.values()))


def test_a_method_imports_no_method():
    wrong = []
    for path, relative in modules():
        if dotted(path) not in methods():
            continue
        for name, line in imported(path):
            other = next((m for m in methods() if name == m or name.startswith(m + ".")), None)
            if other is not None and other != dotted(path):
                wrong.append(f"{relative}:{line} imports {name}; what two methods need has a file of its own")
    assert not wrong, "\n".join(wrong)


def test_rooms_are_small():
    """No room holds more than 20 files beside its sub-rooms, and no file more than 300 lines."""
    rooms = {path.parent for path, _ in modules()}
    full = {str(r): n for r in rooms if (n := len(list(r.glob("*.py")))) > MOST_FILES}
    long = {str(r): n for p, r in modules() if (n := len(p.read_text(encoding="utf-8").splitlines())) > MOST_LINES}
    assert not full and not long


def parameters(function: ast.FunctionDef) -> int:
    a = function.args
    return len([p for p in (*a.posonlyargs, *a.args, *a.kwonlyargs) if p.arg not in ("self", "cls")])


def test_signatures_are_short():
    """Options that belong together are one value."""
    long = {
        f"{relative}:{node.name}": parameters(node)
        for path, relative in modules()
        if not str(relative).startswith((KERNELS, VERBS))
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name == "__init__")
        and parameters(node) > MOST_PARAMETERS
    }  # fmt: skip
    assert not long


def defined(path: Path) -> set[str]:
    """Public names that a module makes at its top."""
    out = set()
    for node in tree(path).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            out.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            out |= {t.id for t in targets if isinstance(t, ast.Name)}
    return {name for name in out if not name.startswith("_")}


def test_a_name_has_one_home():
    """A reader who meets a name elsewhere knows what it is."""
    homes: dict[str, list[str]] = {}
    for path, relative in modules():
        for name in defined(path):
            homes.setdefault(name, []).append(str(relative))
    twice = {name: where for name, where in homes.items() if len(where) > 1}
    assert twice.keys() == TWICE.keys(), {k: twice.get(k) for k in twice.keys() ^ TWICE.keys()}


MAP = PACKAGE.parent / "docs" / "architecture.md"


@functools.cache
def every_name() -> frozenset[str]:
    """All that the package defines or calls by: functions, classes, attributes, parameters, modules, and short texts."""
    out: set[str] = set()
    for path, relative in modules():
        out |= {part.removesuffix(".py") for part in relative.parts}
        for node in ast.walk(tree(path)):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                out.add(node.name)
            elif isinstance(node, (ast.Name, ast.arg, ast.Attribute)):
                out.add(getattr(node, "id", None) or getattr(node, "arg", None) or getattr(node, "attr", ""))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
                out.add(node.value)
    return frozenset(out)


def words_of_code() -> list[str]:
    return sorted(set(re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", MAP.read_text(encoding="utf-8"), flags=re.S))))


@pytest.mark.parametrize("word", words_of_code())
def test_what_the_map_names_is_there(word: str):
    """Files and rooms where they stand, methods of classes on their class, and every other name somewhere."""
    if "/" in word or word.endswith(".py"):
        assert (PACKAGE / word).exists() or (PACKAGE.parent / word).exists()
        return
    found = re.fullmatch(r"([A-Z]\w+)\.(\w+)", word)
    if found is not None:
        bodies = [
            n for p, _ in modules() for n in ast.walk(tree(p)) if isinstance(n, ast.ClassDef) and n.name == found[1]
        ]
        assert any(found[2] in {m for node in ast.walk(body) for m in names_in(node)} for body in bodies)
        return
    command = re.fullmatch(r"concept-probe (\w+) (\w+)", word)
    known = every_name() | {f"concept_probe.{name}" for name in ("erasers", "attacks", "recognisers", "families")}
    for name in command.groups() if command else re.findall(r"[A-Za-z_][\w.]*", re.sub(r'"[^"]*"', "", word)):
        assert name in known | KEYWORDS or set(name.split(".")) <= known, name


KEYWORDS = {"with", "from", "import"}


def names_in(node: ast.AST) -> list[str]:
    """What a statement of a class body makes."""
    if isinstance(node, ast.FunctionDef):
        return [node.name]
    return [node.target.id] if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) else []


def test_the_map_has_every_room():
    shown = set(re.findall(r"^\| `([\w./]+)` \|", MAP.read_text(encoding="utf-8"), re.M))
    rooms = {f"{r.parent.as_posix()}/" for p, r in modules() if p.name == "__init__.py" and r.parent != Path()}
    files = {str(r) for _, r in modules() if len(r.parts) == 1 and r.stem not in ("__init__", "__main__")}
    assert rooms | files == {name for name in shown if name.endswith(("/", ".py"))}


def test_the_map_has_the_order_of_rooms():
    shown = re.findall(r"^\| `(\w+)(?:/|\.py)` \|", MAP.read_text(encoding="utf-8"), re.M)
    assert shown == [room for room in ORDER if room != "__main__"]
