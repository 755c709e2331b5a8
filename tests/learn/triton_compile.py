"""Compiles every Triton kernel for Hopper (sm_90) with Triton's own assembler; needs no GPU.

    python tests/learn/triton_compile.py fp32

Prints one line per kernel and index type: registers of a thread, bytes spilled from them, shared memory.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from concept_probe.learn.kernels import triton_kernels
from concept_probe.learn.kernels.triton_launch import CELL, ENTRIES, ROW_BYTES

KERNELS = ("weighted_rows", "row_products", "cell_sums", "scatter_rows", "decode_error")
BYTES = {"fp64": 8, "fp32": 4, "bf16": 2, "fp16": 2}


def signature(names: list[str], constants: dict, rows: str, integer: str) -> dict[str, str]:
    """Type of each argument. Activations and rows are of one type, codes of theirs; order and cells as training has."""
    sums = "fp64" if rows == "fp64" else "fp32"
    types = {
        "indices": f"*{integer}", "entries": "*i64", "owners": "*i32", "offsets": "*i32", "ends": "*i32",
        "cells": f"*{sums}", "squares": f"*{sums}", "k": "i32", "d": "i32", "features": "i32",
    }  # fmt: skip
    return {name: "constexpr" if name in constants else types.get(name, f"*{rows}") for name in names}


def compiled(name: str, rows: str, integer: str):
    kernel = getattr(triton_kernels, name)
    constants = {
        "ACC": triton_kernels.tl.float64 if rows == "fp64" else triton_kernels.tl.float32,
        "ENTRIES": ENTRIES, "WIDTH": ROW_BYTES // BYTES[rows], "CELL": CELL,
    }  # fmt: skip
    names = kernel.arg_names
    constants = {key: value for key, value in constants.items() if key in names}
    kinds = signature(names, constants, rows, integer)
    # As the launcher finds them in training: tensors begin at a multiple of 16 bytes, widths are one of 16.
    even = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if kinds[n].startswith("*") or n == "d"}
    source = ASTSource(fn=kernel, signature=kinds, constexprs=constants, attrs=even)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": True})


def resources(cubin: bytes) -> str:
    """What `cuobjdump --dump-resource-usage` says of the only kernel in `cubin`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        said = subprocess.run([tool, "--dump-resource-usage", path], capture_output=True, text=True, check=True).stdout
    found = {key: int(number) for key, number in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", said)}
    return f"registers {found['REG']}, spilled {found['STACK'] + found['LOCAL']}, shared {found['SHARED']}"


def main() -> None:
    rows = sys.argv[1]
    for name in KERNELS:
        for integer in ("i64", "i32"):
            done = compiled(name, rows, integer)
            vectors = max(map(int, re.findall(r"ld\.global(?:\.\w+)*\.v(\d)\.b32", done.asm["ptx"])), default=1)
            print(f"{name} {rows} {integer}: {resources(done.asm['cubin'])}, widest load {4 * vectors} bytes")


if __name__ == "__main__":
    main()
