"""A GGUF file is hashed whole once: it is known again by size, time and samples, and a changed one is not."""

from __future__ import annotations

import os

from concept_probe.families import gguf


def test_a_file_that_was_hashed_is_known_again_until_it_changes(tmp_path, monkeypatch):
    hashed = []

    def counted(file):
        hashed.append(file)
        return sha256(file)

    sha256 = gguf.file_sha256
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(gguf, "file_sha256", counted)
    monkeypatch.setattr(gguf, "_convert", lambda file, folder: (folder / "config.json").write_text("{}"))
    monkeypatch.setattr(gguf.importlib.util, "find_spec", lambda name: name)
    file = tmp_path / "a[0].gguf"
    file.write_bytes(bytes(range(256)) * 2000)
    place = gguf.converted(file)
    assert gguf.converted(file) == place and len(hashed) == 1
    os.utime(file, ns=(1, 1))
    assert gguf.converted(file) == place and gguf.converted(file) == place and len(hashed) == 2
    with file.open("r+b") as stream:
        stream.write(b"?")
    os.utime(file, ns=(1, 1))
    assert gguf.converted(file) != place and len(hashed) == 3
    assert gguf.converted(file) != place and len(hashed) == 3
