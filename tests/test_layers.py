"""The rooms stand in one order, and importing the package is silent and light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "concept_probe"
ORDER = (
    "registry", "types", "storage", "testbed", "concepts", "detect", "families", "activations", "evaluation", "learn", "find",
    "erasers", "attacks", "auditing", "bench", "figures", "report", "cli", "testing", "__main__",
)  # fmt: skip
"""A room imports only rooms before it."""
NARROW = {"figures": {"types", "registry"}, "report": {"types", "registry", "figures"}}
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


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, path.relative_to(PACKAGE)


def room_of(relative: Path) -> str:
    return relative.parts[0].removesuffix(".py")


def imported(path: Path) -> list[tuple[str, int]]:
    """Absolute dotted names that a file imports anywhere, with their lines; `from a import b` gives `a.b`."""
    inside = ("concept_probe", *path.relative_to(PACKAGE).parts[:-1])
    out = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
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
