"""Tables of prompts as concepts: whose rows are the target, whose neighbours, and what is left out."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from concept_probe.cli import app
from concept_probe.concepts import concept_of_table, load_concept
from concept_probe.registry import UnknownName
from concept_probe.types import SPLITS

ROWS = [f"{i},a {what} in the style of Vincent Van Gogh,{i + 100},Vincent van Gogh" for i, what in enumerate("abcdef")]
ROWS += [f"{i + 6},a {what} by monet,{i},Claude Monet" for i, what in enumerate("abcde")] + ["11,a chair,3,"]
TABLE = "case_number,prompt,evaluation_seed,artist\n" + "\n".join([*ROWS, ROWS[0].replace(",100,", ",101,")]) + "\n"


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "artists.csv"
    path.write_text(TABLE)
    return path


def test_rows_of_the_name_are_the_target_and_others_neighbours(table):
    with pytest.warns(UserWarning, match="own seed and guidance are left out"):
        found = concept_of_table(table, "vincent_van_gogh")
    assert [len(list(getattr(found, kind))) for kind in ("target", "neighbours", "unrelated")] == [6, 5, 1]
    assert {(p.subject, p.label) for p in found.target} == {(None, "vincent_van_gogh")}
    assert {(p.subject, p.label) for p in concept_of_table(table, "Vincent van Gogh").target} == {
        ("Vincent Van Gogh", "Vincent van Gogh")
    }
    assert {(p.label, p.text[-5:]) for p in found.neighbours} == {("Claude Monet", "monet")}
    assert all(found.prompts("target", split) for split in SPLITS)
    again = concept_of_table(table, "vincent_van_gogh")
    assert again == found


def test_without_labels_all_are_the_target_and_too_few_are_none(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("prompt\na church\na church at night\nan old church\n")
    assert [p.subject for p in concept_of_table(path, "church").target] == ["church"] * 3
    path.write_text("prompt,seed\na church,1\na church,2\na church at night,0\n")
    with pytest.raises(ValueError, match=r"holds 2 prompts on 'church', and a concept needs 3"):
        concept_of_table(path, "church")


def test_a_name_that_the_table_lacks_is_told_with_those_it_has(table):
    with pytest.raises(UnknownName, match=r"label 'Manet' not found; nearest: 'Claude Monet'"):
        concept_of_table(table, "Manet")


def test_the_command_writes_a_concept_file(table, tmp_path):
    shown = CliRunner().invoke(
        app, ["concept", "table", str(table), "Claude Monet", "-o", str(tmp_path / "monet.json")]
    )
    assert shown.exit_code == 0 and "5 target, 6 neighbours, 1 unrelated" in shown.stderr
    assert len(list(load_concept(tmp_path / "monet.json").target)) == 5
