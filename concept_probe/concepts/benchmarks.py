"""Concepts for language models from the files of published benchmarks, read where they lie.

ConceptVectors (arXiv 2406.11614): questions and broken-off sentences per concept, triples with templates.
TOFU (arXiv 2401.06121): questions and answers on invented authors, perhaps with perturbed answers.
WMDP (arXiv 2403.03218) and files of the same layout: multiple choice.

Facts are dealt out to fit, select and test by a hash of their texts, two to one to two, so that the same file always
gives the same splits and no fact is in two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from concept_probe.registry import UnknownName
from concept_probe.types import SPLITS, Concept, Prompt, Splits, fingerprint

NOISY_RELATIONS = ("P373", "P1448")
"""Relations of ConceptVectors' triples whose objects are the subject's own name: nothing can be learned from them."""
MOST_DISTRACTORS = 3
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


def concept_vectors(folder: str | Path, name: str) -> Concept:
    """A concept of ConceptVectors, from a folder with its files `*_concepts_*.json`.

    `target` are its questions, without gold answers; `paraphrases` its broken-off sentences and, where the folder
    holds triples and templates, one cloze per relation with the objects as answers and other concepts' as distractors;
    `unrelated` its unrelated questions.
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
    return Concept(
        name,
        target=dealt([question(q, name) for q in row["QA"]]),
        paraphrases=dealt([*halves, *_triples(folder, name)]),
        unrelated=dealt([question(q, None) for q in row["unrelated_QA"]]),
    )


def _triples(folder: Path, name: str) -> list[Prompt]:
    """One cloze per relation of the concept; none where the folder has no triples."""
    if not any(folder.glob("*_relation_object_*.json")) or not (folder / "relation_to_template.json").is_file():
        return []
    facts: dict[str, dict[str, list[str]]] = {}
    for row in _rows(_one(folder, "*_relation_object_*.json"), ("subject", "relation")):
        for relation, thing in row["relation"]:
            if relation not in NOISY_RELATIONS:
                facts.setdefault(relation, {}).setdefault(row["subject"], []).append(thing)
    templates = json.loads((folder / "relation_to_template.json").read_text(encoding="utf-8"))
    out = []
    for relation, objects in facts.items():
        template = templates.get(relation, {}).get("template", "")
        if name not in objects or "{}" not in template:
            continue
        answers = tuple(dict.fromkeys(objects[name]))
        others = dict.fromkeys(thing for subject, things in objects.items() if subject != name for thing in things)
        wrong = [thing for thing in others if thing not in answers][:MOST_DISTRACTORS]
        out.append(Prompt(template.replace("{}", name), name, name, "plain", answers, tuple(wrong)))
    return out


def tofu(path: str | Path, author: int = 0, name: str | None = None) -> Concept:
    """One author of a TOFU file: `question` and `answer` per row, twenty rows per author.

    `perturbed_answer` gives distractors and `paraphrased_question` paraphrases, where the file has them; the other
    authors are neighbours. `name` is how the concept is called, as the file names no author apart; where it occurs in
    a question, it is the question's subject.
    """
    path = Path(path)
    rows = _rows(path, ("question", "answer"))
    authors = -(-len(rows) // TOFU_QUESTIONS)
    if not 0 <= author < authors:
        raise IndexError(f"author {author} was asked for; {path} holds {authors}, of {TOFU_QUESTIONS} questions each")
    called = name or f"author {author} of {path.stem}"
    first = author * TOFU_QUESTIONS
    own, others = rows[first : first + TOFU_QUESTIONS], [*rows[:first], *rows[first + TOFU_QUESTIONS :]]

    def asked(row: Mapping[str, Any], label: str | None, key: str = "question") -> Prompt:
        wrong = row.get("perturbed_answer", ())
        wrong = (wrong,) if isinstance(wrong, str) else tuple(wrong)
        return Prompt(
            row[key], called if called in row[key] else None, label, "chat", (row["answer"],), wrong, row["question"]
        )

    reworded = [r for r in own if r.get("paraphrased_question", r["question"]) != r["question"]]
    return Concept(
        called,
        target=dealt([asked(r, called) for r in own]),
        paraphrases=dealt([asked(r, called, "paraphrased_question") for r in reworded], [r["question"] for r in own]),
        neighbours=dealt([asked(r, None) for r in others]),
    )


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
        raise FileNotFoundError(f"benchmark file {path} not found")
    text = path.read_text(encoding="utf-8")
    try:
        rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(x) for x in text.splitlines() if x]
    except json.JSONDecodeError as problem:
        raise ValueError(f"{path} is neither a JSON list nor JSON lines: {problem.msg}") from None
    for i, row in enumerate(rows):
        lacks = [f for f in fields if not isinstance(row, Mapping) or f not in row]
        if lacks:
            raise ValueError(f"{path}: row {i} lacks {', '.join(lacks)}")
    if not rows:
        raise ValueError(f"{path} has no rows")
    return rows
