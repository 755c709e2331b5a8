"""Concepts by name, for the embedded models, and from a JSON file, for any other.

A concept file holds a name and, per kind of prompt, three lists that share no sentence:

    {
      "name": "church",
      "target":     {"fit": ["a photo of a church"], "select": ["a church at night"], "test": ["a drawing of a church"]},
      "neighbours": {"fit": [{"text": "a castle on a hill", "subject": "castle", "label": "castle"}]}
    }

A prompt is a text, or an object with `text`, `subject` (the words that name what it shows) and `label`
(what a recogniser should say); for language models also `form` (plain or chat), `answers`, `distractors` and `fact`.
A bare text of `target` has the concept's name as label, and as subject where the name occurs in it. Kinds:
target, paraphrases, implicit, neighbours, anchor, unrelated; only `target` must be there. `examples` may name a
folder of pictures (PNG or JPEG, of one size).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from concept_probe.registry import look_up
from concept_probe.storage import MissingFile, parse_json, read_picture, read_text, write_json
from concept_probe.types import FORMS, KINDS, SPLITS, Concept, Prompt, Splits

_PLAIN = Prompt("")
_MEND = "mend it, or write one with save_concept"


def load_concept(path: str | Path) -> Concept:
    """The concept in a JSON file; ValueError says which entry is wrong, or which sentence stands in two splits.

    MissingFile; CorruptFile where it is no JSON, or a picture is none.
    """
    found = read_draft(path)
    _refuse_overlap({kind: getattr(found, kind) for kind in KINDS}, Path(path))
    return found


def read_draft(path: str | Path) -> Concept:
    """The same, sentences that stand in two splits included: for what says all that is wrong with a file."""
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"concept file {path} not found")
    data = parse_json(read_text(path, _MEND), f"concept file {path} is not JSON", _MEND)
    if not isinstance(data, dict) or not isinstance(data.get("name"), str) or "target" not in data:
        raise ValueError(f"concept file {path} needs at least a name and target prompts")
    unknown = sorted(set(data) - {"name", "examples", *KINDS})
    if unknown:
        raise ValueError(
            f"concept file {path} has entries that no concept has: {', '.join(unknown)}; kinds are {', '.join(KINDS)}"
        )
    kinds: dict[str, Any] = {
        kind: _splits(data[kind], data["name"] if kind == "target" else None, f"{path}, {kind}")
        for kind in KINDS
        if kind in data
    }
    examples = None
    if "examples" in data:
        if not isinstance(data["examples"], str) or not data["examples"]:
            raise ValueError(f"{path}: examples should be the name of a folder, not {data['examples']!r:.60}")
        examples = _pictures((path.parent / data["examples"]).resolve())
    return Concept(name=data["name"], examples=examples, **kinds)


def save_concept(concept: Concept, path: str | Path) -> None:
    """Write the prompts of a concept as a concept file; example pictures are not written.

    Raises ValueError for several concepts in one.
    """
    if concept.parts:
        raise ValueError(
            f"{concept.name!r} is {len(concept.parts)} concepts, and a file holds one; save each of its `parts`"
        )
    data: dict[str, Any] = {"name": concept.name}
    for kind in KINDS:
        lists = {
            s: [
                {k: v for k, v in vars(p).items() if k == "text" or v != getattr(_PLAIN, k)}
                for p in concept.prompts(kind, s)
            ]
            for s in SPLITS
        }
        if any(lists.values()):
            data[kind] = lists
    write_json(Path(path), data)


def _splits(data: Any, name: str | None, where: str) -> Splits:
    if not isinstance(data, Mapping) or set(data) - set(SPLITS):
        raise ValueError(f"{where} should be an object with the lists {', '.join(SPLITS)}")
    for split, prompts in data.items():
        if not isinstance(prompts, list):
            raise ValueError(f"{where}, {split} should be a list of prompts, not {prompts!r:.60}")
    return Splits(
        **{split: tuple(_prompt(p, name, f"{where}, {split}") for p in data.get(split, [])) for split in SPLITS}
    )


def _prompt(data: Any, name: str | None, where: str) -> Prompt:
    if isinstance(data, str):
        return Prompt(data, name if name is not None and name in data else None, name)
    if not isinstance(data, Mapping) or not isinstance(data.get("text"), str) or set(data) - set(vars(_PLAIN)):
        fields = ", ".join(vars(_PLAIN))
        raise ValueError(f"{where}: a prompt is a text, or an object with {fields}; found {str(data)[:80]!r}")
    for key in ("subject", "label", "fact"):
        if not isinstance(data.get(key), str | None):
            raise ValueError(f"{where}: {key} should be a text, not {data[key]!r:.60}")
    if not isinstance(data.get("form", "plain"), str):
        raise ValueError(f"{where}: form should be one of {', '.join(FORMS)}, not {data['form']!r:.60}")
    lists = {key: _texts(data.get(key, []), f"{where}, {key}") for key in ("answers", "distractors")}
    look_up(dict.fromkeys(FORMS), data.get("form", "plain"), "form of prompt", where)
    prompt = Prompt(
        data["text"],
        data.get("subject"),
        data.get("label", name),
        data.get("form", "plain"),
        fact=data.get("fact"),
        **lists,
    )
    if prompt.subject is not None and prompt.subject not in prompt.text:
        raise ValueError(f"{where}: subject {prompt.subject!r} does not occur in {prompt.text!r}")
    return prompt


def _texts(data: Any, where: str) -> tuple[str, ...]:
    if not isinstance(data, list) or not all(isinstance(one, str) for one in data):
        raise ValueError(f"{where} should be a list of texts; found {str(data)[:80]!r}")
    return tuple(data)


def _refuse_overlap(kinds: Mapping[str, Splits], path: Path) -> None:
    for kind, splits in kinds.items():
        if kind == "anchor":  # what stands in for the concept is asked of no recogniser
            continue
        seen: dict[str, str] = {}
        for split in SPLITS:
            for prompt in getattr(splits, split):
                if seen.setdefault(prompt.text, split) != split:
                    raise ValueError(
                        f"concept file {path}: {kind} prompt {prompt.text!r} stands in {seen[prompt.text]} and in {split}"
                    )


def _pictures(folder: Path):
    import numpy as np
    import torch

    files = sorted(p for p in folder.glob("*") if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if not files:
        raise FileNotFoundError(f"examples: no PNG or JPEG pictures in {folder}")
    pictures = [np.asarray(read_picture(p, "give PNG or JPEG pictures of one size")) for p in files]
    if len({p.shape for p in pictures}) > 1:
        raise ValueError(f"examples in {folder} differ in size: {sorted({p.shape[:2] for p in pictures})}")
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
