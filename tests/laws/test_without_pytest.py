"""What of `concept_probe.testing` works where pytest isn't installed, and what is said of the rest."""

from __future__ import annotations

import subprocess
import sys

import pytest

HIDDEN = """
import importlib.abc, sys

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("pytest", "_pytest"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "pytest" else real(name, package)
sys.meta_path.insert(0, Hidden())
"""


@pytest.mark.slow
def test_what_needs_pytest_says_so_with_the_mend():
    asked = (
        "from concept_probe.testing import assert_erased\n"
        "from concept_probe.testing.concepts import tiny_concept\n"
        "tiny_concept()\n"
        "try:\n    from concept_probe.testing import laws\n"
        "except ImportError as error:\n    print(error)\n"
    )
    shown = subprocess.run([sys.executable, "-c", HIDDEN + asked], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "run by pytest, and it is not installed: pip install 'concept-probe[test]'" in shown.stdout
