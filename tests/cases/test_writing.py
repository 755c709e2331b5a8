"""What is written: on a full disk, with the rights of the umask, through links, as the library writes it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest
import torch

from concept_probe.bench import RowStore, SweepRow
from concept_probe.storage import WrongFile, read_tensors, write_sealed, write_tensors, write_text
from concept_probe.storage import tensors as tensor_files
from tests.cases.made import row

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="rights, links and locks of POSIX")


FULL = """
import resource, signal, sys
from pathlib import Path
import torch
from concept_probe.bench import RowStore, SweepRow
from concept_probe.storage import write_sealed, write_text

folder = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = RowStore(folder / "rows.jsonl")
store.append(SweepRow("a", "uce", "camel", "none", 0, "done"))
write_text(folder / "page.html", "old")
write_sealed(folder / "x.safetensors", {"x": torch.ones(3)}, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
tries = (
    lambda: store.append(SweepRow("b", "uce", "camel", "none", 0, "done", {"long": "x" * 500})),
    lambda: write_text(folder / "page.html", "new" * 500),
    lambda: write_sealed(folder / "x.safetensors", {"x": torch.ones(300)}, {}),
)
for one in tries:
    try:
        one()
    except OSError as error:
        print(type(error).__name__, error.errno)
    else:
        print("no error")
"""


@pytest.mark.slow
@POSIX
def test_a_full_disk_is_said_and_loses_nothing(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:3] == ["OSError 27"] * 3
    assert RowStore(tmp_path / "rows.jsonl").rows() == {"a": SweepRow("a", "uce", "camel", "none", 0, "done")}
    assert (tmp_path / "page.html").read_text() == "old"
    assert torch.equal(read_tensors(tmp_path / "x.safetensors", "", sealed=True)[0]["x"], torch.ones(3))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["page.html", "rows.jsonl", "rows.jsonl.lock", "x.safetensors"]


def test_a_row_whose_flush_fails_is_not_there(tmp_path, monkeypatch):
    store = RowStore(tmp_path / "rows.jsonl")
    store.append(row("a"))

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.append(row("b"))
    monkeypatch.undo()
    store.append(row("c"))
    assert set(store.rows()) == {"a", "c"}


@POSIX
@pytest.mark.parametrize("write", [lambda p: write_text(p, "x"), lambda p: write_tensors(p, {"x": torch.ones(2)})])
def test_rights_are_those_that_the_umask_leaves(write, tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "file.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file.safetensors").stat().st_mode) == 0o640


@POSIX
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.lock"])
def test_no_link_is_followed(name, tmp_path):
    foreign = tmp_path / "thesis.txt"
    foreign.write_text("one\ntwo")
    (tmp_path / name).symlink_to(foreign)
    with pytest.raises(WrongFile, match="a symbolic link, which is not followed"):
        RowStore(tmp_path / "rows.jsonl").append(row("a"))
    write_text(tmp_path / name, "ours")
    assert foreign.read_text() == "one\ntwo" and not (tmp_path / name).is_symlink()


def test_tensors_are_written_as_the_library_writes_them(tmp_path):
    from safetensors.torch import save

    tensors = {n.lower(): torch.zeros(3, 2, dtype=t) for n, t in tensor_files.TENSOR_TYPES.items()}
    tensors |= {"scalar": torch.tensor(2.0), "empty": torch.zeros(0, 4), "é": torch.arange(5)}
    write_tensors(tmp_path / "x.safetensors", tensors, {"k": "é"})
    assert (tmp_path / "x.safetensors").read_bytes() == save(tensors, {"k": "é"})
    write_sealed(tmp_path / "y.safetensors", tensors, {"b": "1", "a": "2"})
    first = (tmp_path / "y.safetensors").read_bytes()
    write_sealed(tmp_path / "y.safetensors", tensors, {"a": "2", "b": "1"})
    assert (tmp_path / "y.safetensors").read_bytes() == first
