"""What a sweep keeps of a fit is made anew where it was damaged."""

from __future__ import annotations

import pytest

from tests.bench.cases import grid, sweep


@pytest.mark.slow
def test_a_damaged_kept_fit_is_fitted_anew(tmp_path):
    first = [row for row in sweep(tmp_path).run() if row.status == "done"]
    files = sorted(p for p in (tmp_path / "fits").rglob("*") if p.name in ("fit.json", "edit.json", "edit.safetensors"))
    assert len(files) == 4
    for number, path in enumerate(files):
        whole = path.read_bytes()
        path.write_bytes(
            whole[: len(whole) // 2] if number % 2 else whole.replace(b"1", b"2").replace(b"\x00", b"\x01")
        )
        again = sweep(tmp_path / f"again{number}", grid())
        again.folder = tmp_path
        with pytest.warns(UserWarning, match="it is fitted anew"):
            rows = list(again.run())
        assert [row.values["after"] for row in rows if "after" in row.values] == [
            row.values["after"] for row in first if "after" in row.values
        ]
        assert all(row.status == "done" for row in rows)
