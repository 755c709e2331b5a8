"""A new eraser is one file and one line: here, in a copy of the package, or in a package of one's own.

It is the one of docs/how-to/add-an-eraser.md, word for word.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BROKEN = ("along.clamp(min=0)", "along.clamp(min=0) * x.new_empty(1).uniform_()")
"""What makes it draw anew at every pass, which no law may let through."""


def written() -> str:
    """The eraser of the page."""
    page = (ROOT / "docs" / "how-to" / "add-an-eraser.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```", page, re.S)
    assert found is not None
    return found[1]


def run(folder: Path, *command: str, path: tuple[Path, ...]) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "COLUMNS": "160", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


def laws(folder: Path, file: str, *path: Path, of: str = "push_away") -> subprocess.CompletedProcess[str]:
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\nmarkers = slow: takes long\n")
    return run(folder, "pytest", "-q", file, "-k", f"sd- and {of}", path=path)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of one's own, as it is installed: its module, and the folder that says what it adds."""
    site = tmp_path / "site"
    told = site / "my_erasers-1.2.dist-info"
    told.mkdir(parents=True)
    (site / "my_erasers.py").write_text(written(), encoding="utf-8")
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: my-erasers\nVersion: 1.2\n")
    (told / "entry_points.txt").write_text("[concept_probe.erasers]\npush_away = my_erasers:PushAway\n")
    (tmp_path / "test_mine.py").write_text("from concept_probe.testing import laws\n")
    return site


@pytest.mark.slow
def test_a_package_of_one_s_own_brings_its_eraser_and_its_tests(tmp_path: Path, package: Path):
    shown = run(tmp_path, "concept_probe", "info", "erasers", path=(ROOT, package))
    own, _, added = shown.stdout.partition("from my-erasers 1.2")
    assert "ablate_features" in own and "push_away" not in own, shown.stderr
    assert re.search(r"push_away .* guard .* pictures .* Take out by how much", added)
    held = laws(tmp_path, "test_mine.py", ROOT, package)
    assert held.returncode == 0, held.stdout[-3000:]
    passed = re.search(r"(\d+) passed", held.stdout)
    assert passed is not None and int(passed[1]) >= 10


@pytest.mark.slow
def test_the_laws_see_what_is_wrong_with_it(tmp_path: Path, package: Path):
    whole = (package / "my_erasers.py").read_text(encoding="utf-8")
    assert BROKEN[0] in whole
    (package / "my_erasers.py").write_text(whole.replace(*BROKEN), encoding="utf-8")
    held = laws(tmp_path, "test_mine.py", ROOT, package)
    assert held.returncode == 1, held.stdout[-3000:]
    assert re.search(r"FAILED .*test_same_seed_same_result\[sd-push_away\]", held.stdout)
    assert not re.search(r"FAILED .*test_strength_zero", held.stdout)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_where_nothing_was_added_the_laws_say_so(tmp_path: Path):
    (tmp_path / "test_mine.py").write_text("from concept_probe.testing import laws\n")
    held = run(tmp_path, "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py", path=(ROOT,))
    assert held.returncode == 1 and "is yours installed" in held.stdout and "1 failed" in held.stdout


@pytest.mark.slow
def test_a_package_of_one_s_own_is_in_the_reference(tmp_path: Path, package: Path):
    pytest.importorskip("griffe")
    made = tmp_path / "pages"
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), str(made)], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(package)])}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page = (made / "reference" / "erasers.md").read_text(encoding="utf-8")
    assert re.search(r"^\| `push_away` \| .* \| my-erasers 1.2 \|$", page, re.M)
    assert "## From other packages" in page and "Factor on what is taken out" in page


@pytest.mark.slow
def test_one_file_and_one_line_in_the_package_are_enough(tmp_path: Path):
    leave_out = shutil.ignore_patterns("__pycache__", "*.safetensors")
    for part in ("concept_probe", "docs", "tests/laws"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=leave_out)
    room = tmp_path / "concept_probe" / "erasers"
    (room / "guards" / "push_away.py").write_text(written(), encoding="utf-8")
    registry = (room / "__init__.py").read_text(encoding="utf-8")
    line = '        "push_away": importlib.import_module("concept_probe.erasers.guards.push_away").PushAway,\n'
    changed = registry.replace('        "ablate_features"', line + '        "ablate_features"', 1)
    changed = changed.replace(
        "from __future__ import annotations\n", "from __future__ import annotations\nimport importlib\n"
    )
    assert changed != registry
    (room / "__init__.py").write_text(changed, encoding="utf-8")
    shown = run(tmp_path, "concept_probe", "info", "erasers", path=(tmp_path,))
    assert "push_away" in shown.stdout, shown.stderr
    held = laws(tmp_path, "tests/laws/test_laws.py", tmp_path, of="push_away")
    assert held.returncode == 0 and "passed" in held.stdout, held.stdout[-3000:]
    done = run(tmp_path / "docs", "generate", str(tmp_path / "pages"), path=(tmp_path, tmp_path / "docs"))
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "pages" / "reference" / "erasers.md").read_text(encoding="utf-8")
    assert re.search(r"^\| `push_away` \| .* \| concept_probe \|$", page, re.M)
    assert "push_away" in (tmp_path / "pages" / "reference" / "erasers" / "guards.md").read_text(encoding="utf-8")
