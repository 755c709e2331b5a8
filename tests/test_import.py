"""Importing the package is silent, light and quick."""

import ast
import subprocess
import sys
from pathlib import Path

import concept_probe as cp

HEAVY = ("sae_lens", "diffusers", "transformers", "plotly", "wandb", "peft", "accelerate")


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_import_prints_nothing_and_loads_no_heavy_library():
    done = run(f"import concept_probe, sys; bad = [m for m in {HEAVY} if m in sys.modules]; assert not bad, bad")
    assert done.stdout == "" and done.stderr == ""


def test_import_adds_little_to_importing_torch():
    # The same process imports torch first, so that only what the package adds is timed; best of three.
    code = "import torch, time; t = time.perf_counter(); import concept_probe; print(time.perf_counter() - t)"
    assert min(float(run(code).stdout) for _ in range(3)) < 0.3


def test_every_public_name_is_there():
    for name in cp.__all__:
        assert getattr(cp, name) is not None, name
    assert set(cp.__all__) <= set(dir(cp))


def test_what_editors_see_is_what_there_is():
    tree = ast.parse(Path(cp.__file__).read_text(encoding="utf-8"))
    blocks = [n for n in tree.body if isinstance(n, ast.If)]
    seen = {a.name for b in blocks for n in b.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert seen | {"__version__"} == set(cp.__all__)


def test_functions_that_share_a_room_s_name_stay_functions():
    code = (
        "import concept_probe as cp; cp.tap; cp.Edit; import concept_probe.auditing.verdict, concept_probe.activations.tap; "
        "assert callable(cp.capture) and callable(cp.erase) and callable(cp.audit); "
        "from concept_probe.activations import tap; assert callable(tap)"
    )
    run(code)
