"""Read a causal language model and its tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from concept_probe.families.files import refuse_outside
from concept_probe.families.language.chat import AS_USUAL, ChatFrame
from concept_probe.families.reading import Mismatch, ModelSource, opened, refuse_pickles, variant_of

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

    Raises ValueError for weights in a pickle and for a model that needs code of its own, FileNotFoundError for what
    can't be read.
    """
    if source.local:
        refuse_pickles(Path(source.place), ["."])
        refuse_outside(Path(source.place))
    variant = variant_of(Path(source.place)) if source.local else None
    own_code: dict[str, Any] = {"local_files_only": source.local, "trust_remote_code": False}
    with opened(source):
        said, _ = transformers.PreTrainedConfig.get_config_dict(source.place, local_files_only=source.local)
    if not isinstance(said, Mapping):
        raise source.unreadable(ValueError(f"config.json holds a {type(said).__name__}, not a table"))
    _refuse_foreign(source, said)
    if not source.local:
        with opened(source):
            index = transformers.utils.cached_file(
                source.place, "model.safetensors.index.json", _raise_exceptions_for_missing_entries=False
            )
        if index is not None:
            refuse_outside(Path(index).parent)
    with opened(source):
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
            source.place,
            dtype=source.dtype,
            use_safetensors=True,
            output_loading_info=True,
            variant=variant,
            **own_code,
        )
        model, info = loaded
        tokenizer = transformers.AutoTokenizer.from_pretrained(source.place, **own_code)
    model = model if source.device is None else model.to(source.device)
    return LanguageModel(model, tokenizer), [Mismatch.of(COMPONENT, info)]


def _refuse_foreign(source: ModelSource, config: Mapping[str, Any]) -> None:
    """Raise ValueError for a configuration that asks for code which the installed library does not have."""
    kind = config.get("model_type")
    if "auto_map" in config and kind not in transformers.CONFIG_MAPPING:
        raise source.foreign(f"auto_map of model_type {kind!r} in config.json")
    for key in ("attn_implementation", "_attn_implementation"):
        if "/" in str(config.get(key, "")):
            raise source.foreign(f"{key} {config[key]!r} in config.json, a kernel from the hub")
