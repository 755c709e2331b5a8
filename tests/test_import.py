"""Importing the package is silent, light and quick."""

import subprocess
import sys
from pathlib import Path

import pytest

import concept_probe as cp

HEAVY = ("sae_lens", "diffusers", "transformers", "plotly", "wandb", "peft", "accelerate")


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_import_prints_nothing_and_loads_no_heavy_library():
    done = run(f"import concept_probe, sys; bad = [m for m in {HEAVY} if m in sys.modules]; assert not bad, bad")
    assert done.stdout == "" and done.stderr == ""


@pytest.mark.slow
def test_import_adds_little_to_importing_torch():
    # The same process imports torch first, so that only what the package adds is timed; best of three.
    code = "import torch, time; t = time.perf_counter(); import concept_probe; print(time.perf_counter() - t)"
    assert min(float(run(code).stdout) for _ in range(3)) < 0.3


def test_every_public_name_is_there():
    names = vars(cp)["__all__"]
    for name in names:
        assert getattr(cp, name) is not None, name
    assert set(names) <= set(dir(cp))


@pytest.mark.slow
def test_a_name_is_the_same_whatever_was_imported_before():
    code = (
        "import concept_probe.auditing.verdict, concept_probe.activations.tap, concept_probe as cp; "
        "assert callable(cp.capture) and callable(cp.tap) and callable(cp.erase) and callable(cp.audit); "
        "assert cp.find.find_features is cp.find_features"
    )
    run(code)


def test_an_unknown_name_is_no_attribute():
    with pytest.raises(AttributeError, match="module 'concept_probe' has no attribute 'eraze'"):
        cp.eraze  # pyright: ignore[reportAttributeAccessIssue]  # noqa: B018


def test_type_checkers_are_told_where_to_look():
    package = Path(cp.__file__).parent
    assert (package / "py.typed").exists() and (package / "__init__.pyi").exists()
