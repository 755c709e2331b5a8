"""Concepts for language models from the files of published benchmarks, read where they lie.

ConceptVectors (arXiv 2406.11614): questions and broken-off sentences per concept, triples with templates.
TOFU (arXiv 2401.06121): questions and answers on invented authors, perhaps with perturbed answers.
MUSE (arXiv 2407.06460): questions on a corpus, and how its texts go on.
WMDP (arXiv 2403.03218) and files of the same layout: multiple choice.

Facts are dealt out to fit, select and test by a hash of their texts, two to one to two, so that the same file always
gives the same splits and no fact is in two.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from concept_probe.registry import UnknownName
from concept_probe.storage import MissingFile, check_fields, parse_json, read_json, read_text
from concept_probe.storage.schema import Fields, Free, Items, Table, Text, Tuple
from concept_probe.types import SPLITS, Concept, Prompt, Splits, fingerprint

NOISY_RELATIONS = ("P373", "P1448")
"""Relations of ConceptVectors' triples whose objects are the subject's own name: nothing can be learned from them."""
MOST_DISTRACTORS = 3
_MEND = "get the file again"
_TEXTS = Items(Text())
_ROW_OF = Fields(
    {},
    {
        "Concept": Text(), "QA": _TEXTS, "unrelated_QA": _TEXTS, "subject": Text(),
        "text_completion": Items(Fields({"First_half": Text(), "Second_half": Text()}, open=True)),
        "relation": Items(Tuple((Text(), Text()))), "question": Text(), "choices": Items(Free()), "paraphrased_question": Text(),
    },
    open=True,
)  # fmt: skip
"""What fields of these files have to be, where a row has them."""
TOFU_QUESTIONS = 20
"""Questions on one author, one after the other."""


def dealt(prompts: Sequence[Prompt], facts: Sequence[str] | None = None) -> Splits:
    """Two fifths of the facts to fit, one to select, two to test, in an order that only their texts decide.

    A prompt without a fact is one of its own. `facts` are all that are dealt out, where other lists of prompts are on
    the same ones; they then stand in the same splits. A text that is there twice is kept once.
    """
    distinct = {fingerprint(p.text): p for p in prompts}
    keys = facts if facts is not None else [p.fact or p.text for p in prompts]
    ordered = sorted({fingerprint(k) for k in keys})
    first, second = 2 * len(ordered) // 5, 3 * len(ordered) // 5
    place = {k: "fit" if i < first else "select" if i < second else "test" for i, k in enumerate(ordered)}
    chosen = [(place[fingerprint(p.fact or p.text)], distinct[mark]) for mark, p in sorted(distinct.items())]
    return Splits(*(tuple(p for split, p in chosen if split == s) for s in SPLITS))


def concept_vectors(folder: str | Path, name: str, templates: str | Path | None = None) -> Concept:
    """A concept of ConceptVectors, from a folder with its files `*_concepts_*.json`.

    `target` are its questions, without gold answers; `paraphrases` its broken-off sentences and, where the folder
    holds triples, one cloze per relation with the objects as answers and other concepts' as distractors; `unrelated` its
    unrelated questions. `templates` is the file of the clozes' wordings, `relation_to_template.json` where it stands in the
    folder. Not read are `Layer` and `Dim`, columns of the model that the file is of, and the article.

    Warns of triples that are left out for want of a wording, and that questions without gold answers have none to judge by:
    their likelihood and their overlap with the untouched model's answers can be measured, right and wrong can't.
    """
    folder = Path(folder)
    rows = {row["Concept"]: row for row in _rows(_one(folder, "*_concepts_*.json"), ("Concept", "QA", "unrelated_QA"))}
    if name not in rows:
        raise UnknownName("concept", name, rows, f"in {folder}")
    row = rows[name]

    def question(text: str, label: str | None) -> Prompt:
        text = " ".join(text.split())
        return Prompt(text, name if label and name in text else None, label, "chat")

    halves = [
        Prompt(" ".join(h["First_half"].split()), None, name, "plain", (h["Second_half"].strip(),))
        for h in row.get("text_completion", ())
    ]
    warnings.warn(
        f"the questions on {name!r} have no gold answers in {folder}: whether an answer is right can't be judged by them; give "
        "a recogniser, or audit by prompts with answers",
        stacklevel=2,
    )
    return Concept(
        name,
        target=dealt([question(q, name) for q in row["QA"]]),
        paraphrases=dealt([*halves, *_clozes(folder, name, templates)]),
        unrelated=dealt([question(q, None) for q in row["unrelated_QA"]]),
    )


def _clozes(folder: Path, name: str, templates: str | Path | None) -> list[Prompt]:
    """One cloze per relation of the concept; none where the folder has no triples."""
    if not any(folder.glob("*_relation_object_*.json")):
        return []
    place = Path(templates) if templates is not None else folder / "relation_to_template.json"
    if not place.is_file():
        if templates is not None:
            raise FileNotFoundError(f"file of templates {place} not found")
        warnings.warn(
            f"{folder} holds triples but no {place.name}, so none of them is asked for; put that file beside them, or give "
            "`templates`",
            stacklevel=3,
        )
        return []
    wordings = read_json(place, _MEND)
    check_fields(place, wordings, Table(Fields({}, {"template": Text()}, open=True)), _MEND)
    facts: dict[str, dict[str, list[str]]] = {}
    for row in _rows(_one(folder, "*_relation_object_*.json"), ("subject", "relation")):
        for relation, thing in row["relation"]:
            if relation not in NOISY_RELATIONS:
                facts.setdefault(relation, {}).setdefault(row["subject"], []).append(thing)
    out, bare = [], []
    for relation, objects in facts.items():
        # The concept's own name is in the question, so it answers nothing, and is not wrong either.
        answers = tuple(dict.fromkeys(thing for thing in objects.get(name, ()) if not _same(thing, name)))
        template = wordings.get(relation, {}).get("template", "")
        if not answers:
            continue
        if "{}" not in template:
            bare.append(relation)
            continue
        others = dict.fromkeys(thing for subject, things in objects.items() if subject != name for thing in things)
        right = (name, *objects[name])
        wrong = [thing for thing in others if not any(_same(thing, each) for each in right)][:MOST_DISTRACTORS]
        out.append(Prompt(template.replace("{}", name), name, name, "plain", answers, tuple(wrong)))
    if bare:
        warnings.warn(
            f"{place} words none of the relations {', '.join(bare)} of {name!r}, so these are not asked for",
            stacklevel=3,
        )
    return out


def _same(a: str, b: str) -> bool:
    return fingerprint(a) == fingerprint(b)


def tofu(path: str | Path, author: int = 0, name: str | None = None) -> Concept:
    """One author of a TOFU file: `question` and `answer` per row, twenty rows per author.

    Where the file has them, `perturbed_answer` gives distractors, `paraphrased_question` paraphrases, and
    `paraphrased_answer` a second answer that is right; the other authors are neighbours. `name` is how the concept is
    called, as the file names no author apart; where it occurs in a question, it is the question's subject. Warns where
    the rows do not look like authors of twenty, as those of other files with questions and answers do not.
    """
    path = Path(path)
    rows = _rows(path, ("question", "answer"))
    for i, row in enumerate(rows):
        check_fields(f"{path}, row {i}", row, Fields({"answer": Text()}, open=True), _MEND, "the row")
        wrong = row.get("perturbed_answer", "")
        check_fields(
            f"{path}, row {i}", [wrong] if isinstance(wrong, str) else wrong, _TEXTS, _MEND, "perturbed_answer"
        )
    authors = -(-len(rows) // TOFU_QUESTIONS)
    if not 0 <= author < authors:
        raise IndexError(f"author {author} was asked for; {path} holds {authors}, of {TOFU_QUESTIONS} questions each")
    called = name or f"author {author} of {path.stem}"
    if len(rows) % TOFU_QUESTIONS or not _by_authors(rows):
        warnings.warn(
            f"{path} does not look like a file of TOFU: its {len(rows)} rows are not {TOFU_QUESTIONS} on one author after the "
            "other, so a concept of one such stretch has neighbours of its own kind; for MUSE take muse_knowmem",
            stacklevel=2,
        )
    first = author * TOFU_QUESTIONS
    own, others = rows[first : first + TOFU_QUESTIONS], [*rows[:first], *rows[first + TOFU_QUESTIONS :]]

    def asked(row: Mapping[str, Any], label: str | None, key: str = "question") -> Prompt:
        wrong = row.get("perturbed_answer", ())
        wrong = (wrong,) if isinstance(wrong, str) else tuple(wrong)
        right = tuple(dict.fromkeys(row[k] for k in ("answer", "paraphrased_answer") if row.get(k)))
        return Prompt(row[key], called if called in row[key] else None, label, "chat", right, wrong, row["question"])

    reworded = [r for r in own if r.get("paraphrased_question", r["question"]) != r["question"]]
    return Concept(
        called,
        target=dealt([asked(r, called) for r in own]),
        paraphrases=dealt([asked(r, called, "paraphrased_question") for r in reworded], [r["question"] for r in own]),
        neighbours=dealt([asked(r, None) for r in others]),
    )


def _by_authors(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether stretches of rows have names of their own: none, but for one, is the name that most of another's rows say."""
    names = []
    for start in range(0, len(rows), TOFU_QUESTIONS):
        part = rows[start : start + TOFU_QUESTIONS]
        said = Counter(n for r in part for n in {*re.findall(r"[A-Z]\w+ [A-Z]\w+", f"{r['question']} {r['answer']}")})
        names += [said.most_common(1)[0][0]] if said else []
    return len(set(names)) >= len(names) - 1


def muse_knowmem(path: str | Path, name: str, retain: str | Path | None = None) -> Concept:
    """What is asked about a corpus of MUSE: `question` and `answer` per row, as in its files `knowmem/*_qa.json`.

    Put as MUSE puts them, `Question: ... Answer:`. `retain` is the file about what should stay known, as neighbours.
    """

    def asked(place: str | Path, label: str | None) -> Splits:
        return dealt([_question(r, label) for r in _rows(Path(place), ("question", "answer"))])

    return Concept(name, target=asked(path, name), neighbours=Splits() if retain is None else asked(retain, None))


def _question(row: Mapping[str, Any], label: str | None) -> Prompt:
    answer = row["answer"]
    right = (answer,) if isinstance(answer, str) else tuple(answer)
    return Prompt(f"Question: {row['question'].strip()}\nAnswer:", None, label, "plain", right)


def muse_verbmem(path: str | Path, name: str, retain: str | Path | None = None) -> Concept:
    """How texts of a corpus of MUSE go on: `prompt` and `gt`, what follows, per row, as in its files `verbmem/*.json`.

    `retain` is such a file of texts that may go on as they did, as neighbours.
    """

    def begun(place: str | Path, label: str | None) -> Splits:
        rows = _rows(Path(place), ("prompt", "gt"))
        return dealt([Prompt(r["prompt"].rstrip(), None, label, "plain", (r["gt"].strip(),)) for r in rows])

    return Concept(name, target=begun(path, name), neighbours=Splits() if retain is None else begun(retain, None))


def multiple_choice(path: str | Path, name: str, unrelated: str | Path | None = None) -> Concept:
    """Questions in the layout of WMDP and MMLU: `question`, `choices` and the index `answer` of the right one.

    `unrelated` is a second file of the same layout, on something else.
    """
    rest = Splits() if unrelated is None else dealt([_choice(row, None, unrelated) for row in _choices(unrelated)])
    return Concept(name, target=dealt([_choice(row, name, path) for row in _choices(path)]), unrelated=rest)


def _choices(path: str | Path) -> list[Mapping[str, Any]]:
    return _rows(Path(path), ("question", "choices", "answer"))


def _choice(row: Mapping[str, Any], label: str | None, path: str | Path) -> Prompt:
    choices, right = [str(c) for c in row["choices"]], row["answer"]
    if not isinstance(right, int) or not 0 <= right < len(choices):
        raise ValueError(
            f"{path}: answer {right!r} of {row['question'][:60]!r} is no index into {len(choices)} choices"
        )
    wrong = tuple(c for i, c in enumerate(choices) if i != right)
    text = f"{row['question'].strip()} Choose one: {'; '.join(choices)}."
    return Prompt(text, None, label, "chat", (choices[right],), wrong)


def _one(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise FileNotFoundError(f"{folder} should hold one file {pattern}; found {len(found)}")
    return found[0]


def _rows(path: Path, fields: Sequence[str]) -> list[Mapping[str, Any]]:
    """The rows of a JSON list or of JSON lines, each with `fields`.

    Raises FileNotFoundError, or ValueError naming the row and what it lacks.
    """
    if not path.is_file():
        raise MissingFile(f"benchmark file {path} not found")
    text, mend = read_text(path, _MEND), f"it should be a JSON list or JSON lines; {_MEND}"
    one_list = text.lstrip().startswith("[")
    rows = (
        parse_json(text, path, mend) if one_list else [parse_json(x, path, mend) for x in text.split("\n") if x.strip()]
    )
    for i, row in enumerate(rows):
        lacks = [f for f in fields if not isinstance(row, Mapping) or f not in row]
        if lacks:
            raise ValueError(f"{path}: row {i} lacks {', '.join(lacks)}")
        check_fields(f"{path}, row {i}", row, _ROW_OF, _MEND, "the row")
    if not rows:
        raise ValueError(f"{path} has no rows")
    return rows
