"""The notebook is ten cells of calls, and runs from top to bottom."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.notebooks.cells import holds_calls_alone

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "01_quickstart.ipynb"
PLOTLY = "application/vnd.plotly.v1+json"


def test_it_holds_calls_and_no_logic_and_no_outputs():
    holds_calls_alone(NOTEBOOK)


@pytest.mark.slow
def test_it_runs_and_shows_figures_and_a_report(tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the kernel starts in an empty folder
    monkeypatch.setenv("PLOTLY_RENDERER", "plotly_mimetype")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=1200,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()

    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    errors = [f"{o.ename}: {o.evalue}" for o in outputs if o.output_type == "error"]
    assert errors == []
    shown = [o.data for o in outputs if "data" in o]
    figures = [data[PLOTLY] for data in shown if PLOTLY in data]
    assert len(figures) == 6
    assert any(len(figure["layout"].get("images", ())) == 36 for figure in figures)  # three rows of twelve pictures
    reports = [data["text/html"] for data in shown if 'class="cp-report"' in data.get("text/html", "")]
    assert len(reports) == 1 and "data:image/png;base64," in reports[0]
