"""Read a causal language model and its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError

from concept_probe.families.language.chat import AS_USUAL, ChatFrame
from concept_probe.families.reading import Mismatch, ModelSource, quiet, refuse_pickles

COMPONENT = "model"


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model of transformers and its tokenizer: what a pipeline is to pictures."""

    model: Any
    """With `get_input_embeddings`, `get_output_embeddings` and a forward pass that gives `logits`."""
    tokenizer: Any
    """A fast one, which knows the characters of each token."""
    chat: ChatFrame = AS_USUAL
    """How prompts of form `chat` are put; a subject's can be changed later (`subject.chat = ...`)."""

    def save_pretrained(self, folder: str | Path, *, safe_serialization: bool = True) -> None:
        """Write both into `folder`, where `load` reads them."""
        if not safe_serialization:
            raise ValueError("weights are written as safetensors only: a pickle can run code when it is opened")
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def read_language_model(source: ModelSource) -> tuple[LanguageModel, list[Mismatch]]:
    """The model at a place, and how it differs from its files.

    Raises ValueError for weights in a pickle, FileNotFoundError for what can't be read.
    """
    if source.local:
        refuse_pickles(Path(source.place), ["."])
    try:
        with quiet():
            loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                source.place, dtype=source.dtype, use_safetensors=True, local_files_only=source.local,
                output_loading_info=True,
            )  # fmt: skip
            model, info = loaded
            tokenizer = transformers.AutoTokenizer.from_pretrained(source.place, local_files_only=source.local)
    except (OSError, ValueError, SafetensorError) as problem:
        raise source.unreadable(problem) from problem
    model = model if source.device is None else model.to(source.device)
    return LanguageModel(model, tokenizer), [Mismatch.of(COMPONENT, info)]
