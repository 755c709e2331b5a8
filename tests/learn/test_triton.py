"""Runs `triton_cases.py` in Triton's interpreter, compiles the kernels, and looks at what is there without Triton."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("triton_cases.py")
installed = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    inherited = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    root = CASES.parents[2]
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=root, env=inherited | environment, capture_output=True, text=True)


@pytest.mark.slow
@installed
def test_every_case_holds_in_the_interpreter():
    done = python("-m", "pytest", str(CASES), "-q", "-p", "no:cacheprovider", TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert re.search(r"^\d+ passed in", done.stdout, re.MULTILINE), f"not all cases ran: {done.stdout[-500:]}"


@pytest.mark.slow
@installed
@pytest.mark.parametrize(
    "rows", ["fp32", "bf16", *(pytest.param(x, marks=pytest.mark.exhaustive) for x in ("fp16", "fp64"))]
)
def test_kernels_compile_for_a_gpu_without_one(rows):
    """The interpreter accepts what the compiler refuses: mixed types in a loop, shapes that are no power of two."""
    done = python(str(CASES.with_name("triton_compile.py")), rows)
    assert done.returncode == 0, done.stderr[-4000:]
    assert len(done.stdout.splitlines()) == 10


@pytest.mark.slow
def test_the_package_does_not_import_triton():
    look = "import concept_probe.learn, concept_probe.learn.kernels.triton_ops, sys; assert 'triton' not in sys.modules"
    done = python("-c", look)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("interpret", ["", "1"])
def test_without_triton_nothing_is_available_and_a_call_says_what_to_do(interpret):
    code = """
import importlib.util as u
found = u.find_spec
u.find_spec = lambda name, *rest: None if name == "triton" else found(name, *rest)
import torch
from concept_probe.learn.kernels import triton_ops
one = torch.ones(1, 1)
assert not triton_ops.available(one)
try:
    triton_ops.weighted_rows(one, one.long() * 0, one)
except RuntimeError as error:
    print(error)
"""
    done = python("-c", code, TRITON_INTERPRET=interpret)
    assert "install triton" in done.stdout, done.stderr
