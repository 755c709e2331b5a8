"""Lists of prompts as they are published: tables with a seed and a guidance of each prompt, read by their columns."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from concept_probe.activations import Activations
from concept_probe.cli import app
from concept_probe.concepts import PromptList, read_prompts
from concept_probe.find import Examples, catalogue, evenly_by_label
from concept_probe.testing.found import random_sae
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Prompt, Query, Sampling

TABLE = 'case_number,prompt,evaluation_seed,artist\n0,"a cat, by the sun",2219,the dog\n1,a "red" dog,7,\n'
ASKED = [("a cat, by the sun", 2219), ('a "red" dog', 7)]


def asked(path) -> list[tuple[str, int]]:
    return [(q.prompt.text, q.seed) for q in read_prompts(path).queries]


def written(folder, name: str, text: str | bytes):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.csv", TABLE),
        ("p.CSV", TABLE.encode("utf-8-sig")),
        ("p.csv", TABLE.replace("\n", "\r\n")),
        ("p.csv", TABLE.replace("\n", "\n\n").replace("1,a", ",,,\n1,a")),
        ("p.csv", "Prompt ; Seed\na cat, by the sun;2219\na \"red\" dog;7.0\n"),
        ("p.tsv", 'prompt\tsd_seed\na cat, by the sun\t2219\na "red" dog\t7\n'),
        ("p.jsonl", '{"prompt": "a cat, by the sun", "seed": 2219}\r\n\r\n{"prompt": "a \\"red\\" dog", "seed": "7"}\n'),
        ("p.json", '[{"prompt": "a cat, by the sun", "seed": 2219}, {"prompt": "a \\"red\\" dog", "seed": 7}]'),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_a_table_is_read_by_its_columns(tmp_path, name, text):
    assert asked(written(tmp_path, name, text)) == ASKED


def test_a_prompt_keeps_all_its_seeds_and_says_what_it_shows(tmp_path):
    path = written(tmp_path, "p.csv", ",prompt,seed,class\n0,a cat,1,tench\n1,a cat,2,tench\n2,a cat,2,\n")
    assert asked(path) == [("a cat", 1), ("a cat", 2), ("a cat", 2)]
    assert [q.prompt.label for q in read_prompts(path).queries] == ["tench", "tench", None]


@pytest.mark.filterwarnings("error")
def test_a_text_is_one_prompt_a_line(tmp_path):
    path = written(tmp_path, "p.txt", "\ufeffa cat, by the sun\r\n\r\n  a prompt, by the seed \n[a] dog\n")
    assert asked(path) == [("a cat, by the sun", 0), ("a prompt, by the seed", 0), ("[a] dog", 0)]


def test_columns_that_are_not_read_are_named(tmp_path):
    with pytest.warns(UserWarning, match=r"not read: sd_model, hard$"):
        assert asked(written(tmp_path, "p.csv", "prompt,sd_model,hard\na cat,x,0\n")) == [("a cat", 0)]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.csv", "case_number,text,evaluation_seed\n0,a cat,1\n", "no column `prompt` among case_number, text, evaluation_seed"),
        ("p.csv", "a cat\na dog\n", "no column `prompt` among a_cat; .* let the file end in .txt"),
        ("p.jsonl", '{"text": "a cat"}\n', "no column `prompt` among text"),
        ("p.csv", "prompt,prompt\na,b\n", "two columns are called prompt"),
        ("p.csv", "prompt\na cat, by the sun\n", "line 2 has 2 fields, .* 1 columns .*put quotes around"),
        ("p.csv", "prompt,seed\na cat,1\na d", "line 3 has 1 fields, and the first line names 2 columns"),
        ("p.csv", 'prompt,seed\n"a cat, by', "line 2 is no whole row"),
        ("p.jsonl", '{"prompt": "a cat"}\n{"prompt": "a d', "line 2: not whole JSON"),
        ("p.jsonl", "[1]\n", "line 1 is a JSON list"),
        ("p.csv", "prompt,seed\n,1\n", "line 2 has no prompt"),
        ("p.csv", "prompt,seed\na cat,\n", "line 2 has no seed"),
        ("p.csv", "prompt,seed\na cat,x\n", "line 2 has 'x' as seed, which is a number"),
        ("p.csv", "prompt,seed\na cat,1.5\n", "line 2: seed 1.5 is no whole number"),
        ("p.csv", "prompt,seed\na cat,-1\n", "line 2: seed -1 is no whole number"),
        ("p.csv", "prompt,guidance\na cat,nan\n", "line 2 has 'nan' as guidance"),
        ("p.csv", "prompt,seed,evaluation_seed\na cat,1,2\n", "evaluation_seed 2 and seed 1, which mean one thing"),
        ("p.jsonl", '{"prompt": "a", "seed": 1}\n{"prompt": "b"}\n', "line 2 has no seed"),
        ("p.csv", "prompt,seed\n", "no prompt in it"),
        ("p.txt", "\n\n", "no prompt in it"),
        ("p.csv", b"prompt,seed\nm\xe9re,1\n", r"not text in UTF-8 \(byte 13\)"),
        ("p.csv", TABLE.encode("utf-16"), "not text in UTF-8"),
        ("p.csv", TABLE.encode("utf-16-le"), "zero bytes"),
        ("p.txt", TABLE, "its first line names columns .*call it p.csv"),
        ("p.txt", "prompt\na cat\n", "call it p.csv"),
        ("p", "case_number\tcaption\tseed\n0\ta cat\t1\n", "call it p.tsv"),
        ("p.txt", '{"prompt": "a cat"}\n{"prompt": "a dog"}\n', "call it p.jsonl"),
        ("p.txt", '[\n"a cat"\n]\n', "call it p.json"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_prompts_is_refused_in_words(tmp_path, name, text, said):
    with pytest.raises(ValueError, match=said):
        read_prompts(written(tmp_path, name, text))


def test_the_guidance_of_a_file_is_kept_where_it_is_one(tmp_path):
    text = "prompt,evaluation_guidance\na cat,7.5\na dog,7.5\n"
    one = read_prompts(written(tmp_path, "one.csv", text))
    assert one.sampling(Sampling(steps=3)) == Sampling(steps=3, guidance=7.5)
    assert PromptList.of([Prompt("a cat")]).sampling(Sampling()) == Sampling()
    two = read_prompts(written(tmp_path, "two.csv", text + "the sun,3\n"))
    with pytest.raises(ValueError, match=r"two\.csv asks for guidance 3, 7\.5"):
        two.sampling(Sampling())
    assert two.chosen([0, 1]).sampling(Sampling()).guidance == 7.5


@pytest.mark.slow
@pytest.mark.parametrize("role", ["text_stream", "block_out"])
def test_the_command_line_captures_the_prompts_of_a_table(tmp_path, monkeypatch, role):
    monkeypatch.setattr("concept_probe.cli.arrows.subject_of", lambda *_: tiny_sd())
    text = "prompt,evaluation_seed,evaluation_guidance,source\n" + '"a cat, by the sun",2219,2,x\na dog,3,2,x\n'
    told = ["capture", "--output", str(tmp_path / "a"), "--role", role, "--step", "0", "--prompt-file"]
    shown = CliRunner().invoke(app, [*told, str(written(tmp_path, "p.csv", text))])
    assert shown.exit_code == 0, shown.output
    assert "not read: source" in " ".join(shown.output.split())
    store = Activations.open(tmp_path / "a")
    assert [(q.prompt.text, q.seed) for q in store.queries] == [("a cat, by the sun", 2219), ("a dog", 3)]
    assert set(store.read(store.sites[0]).columns["prompt"].tolist()) == {0, 1}
    mixed = written(tmp_path, "q.csv", text.replace("3,2,x", "3,4,x"))
    again = CliRunner().invoke(app, [*told[:2], str(tmp_path / "b"), *told[3:], str(mixed)])
    assert again.exit_code == (0 if role == "text_stream" else 2), again.output


@pytest.mark.slow
def test_features_in_pictures_are_shown_for_the_seeds_that_are_asked_for():
    subject = tiny_sd()
    queries = [Query(Prompt("a cat"), 5), Query(Prompt("a dog"), 6), Query(Prompt("a cat"), 7)]
    assert evenly_by_label(queries, 9) == tuple(queries)
    options = {"features": (0,), "examples": Examples(3), "sampling": Sampling(steps=1)}
    sae = random_sae(subject, "block_out")
    bare = catalogue(sae, subject, [q.prompt for q in queries], **options)
    own = catalogue(sae, subject, queries, **options)
    assert (bare.prompts, own.prompts) == (2, 3)
    drawn = [catalogue(sae, subject, [q], **options).features[0].strongest for q in queries]
    assert own.features[0].strongest == pytest.approx(max(drawn)) and len({*drawn}) == 3
