"""A result tells the verb that made it and its own arguments, and nothing else of how the program was started."""

from __future__ import annotations

import inspect
import sys

import pytest
import typer
from typer.testing import CliRunner

from concept_probe import auditing
from concept_probe.attacks import Budget
from concept_probe.auditing import AuditPlan
from concept_probe.cli import app
from concept_probe.cli.command_line import Verb, command, without_folders
from concept_probe.cli.reports import signed
from concept_probe.types import Sampling
from tests.auditing.known import Known, Reader, concept


def told(*words: str) -> str:
    """What `command` says inside each verb that signs, which here does nothing else."""
    said: list[str] = []
    shown = typer.Typer()
    for one in app.registered_commands:
        assert one.cls is Verb and one.callback is not None
        shown.command(one.name, cls=Verb)(_like(one.callback, lambda: said.append(command())))
    done = CliRunner().invoke(shown, words)
    assert done.exit_code == 0, done.output
    return said[0]


def _like(verb, do):
    def stand_in(**_):
        do()

    stand_in.__signature__ = inspect.signature(verb, eval_str=True)
    stand_in.__annotations__ = {n: p.annotation for n, p in stand_in.__signature__.parameters.items()}
    return stand_in


@pytest.mark.parametrize("given, kept", [
    ("audit camel --method uce -o reports/camel", "audit camel --method uce --output reports/camel"),
    ("audit camel --edit /home/anna/edits/uce --json", "audit camel --edit uce --json"),
    ("audit camel --recogniser clip:/home/anna/clip -m owner/name", "audit camel --model owner/name --recogniser clip:clip"),
    ("audit camel --attack paraphrases --attack relearning", "audit camel --attack paraphrases --attack relearning"),
    ("run camel --output /tmp/anna/out --seed 3", "run camel --output out --seed 3"),
    ("bench camel /home/anna/cat.json -o two --eraser uce", "bench camel cat.json --output two --eraser uce"),
])  # fmt: skip
def test_the_verb_and_its_own_arguments_are_told(given: str, kept: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["/home/anna/bin/start", "--hf-token", "hf_secret", *given.split()])
    words, expected = told(*given.split()).split(), f"concept-probe {kept}".split()
    assert words[:2] == expected[:2] and sorted(words) == sorted(expected)


@pytest.mark.slow
def test_a_report_made_from_python_tells_no_arguments_of_the_program(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["/home/anna/study.py", "--hf-token", "hf_secret"])
    plan = AuditPlan(prompts=2, seeds=(0,), sampling=Sampling(steps=2), attacks=(), resamples=100, budget=Budget(0, 0))
    report = auditing.audit(Known(0, concept()), None, concept(), recogniser=Reader(), plan=plan)
    for one in (report, signed(report)):
        assert not [w for v in one.provenance.values() for w in ("hf_secret", "hf-token", "anna") if w in v]


@pytest.mark.parametrize("text, kept", [
    ("runs/two", "runs/two"), ("owner/name", "owner/name"), ("module:object", "module:object"), ("/home/anna/x/", "x/"),
    ("C:\\Users\\anna\\x", "x"), ("https://anna:secret@host/a/model", "https:model"),
])  # fmt: skip
def test_of_absolute_paths_the_last_part_is_told(text: str, kept: str):
    assert without_folders(text) == kept
