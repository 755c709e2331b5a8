"""What reading a model from disk or from the hub has in common, whatever its family."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from concept_probe.storage import PICKLES


@dataclass(frozen=True)
class ModelSource:
    """Where a model is, and as what it is wanted."""

    place: str
    """A folder, or a hub id."""
    local: bool
    """Whether it is a folder."""
    dtype: torch.dtype = torch.float32
    device: torch.device | str | None = None
    """None: where it was read to."""

    def unreadable(self, problem: Exception) -> FileNotFoundError:
        """The error for what could not be read, with the mend."""
        said = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
        if self.local:
            mend = (
                "it must hold model_index.json and a folder of safetensors per component, or config.json, a tokenizer "
                "and safetensors of a language model, as save_pretrained writes"
            )
        else:
            mend = (
                "check the spelling and the network; without one (or with HF_HUB_OFFLINE set) the model must be in the "
                "local cache, or give a folder instead; a gated model needs `hf auth login`; weights must be safetensors"
            )
        what = "folder" if self.local else "hub id"
        return FileNotFoundError(f"{what} {self.place!r} could not be loaded: {said}; {mend}")


@dataclass(frozen=True)
class Mismatch:
    """Where a component and the files that it was read from differ."""

    component: str
    missing: tuple[str, ...]
    """Tensors that the files lack: the library made them at random."""
    left: tuple[str, ...]
    """Tensors in the files that the component has no place for."""

    @classmethod
    def of(cls, component: str, info: Mapping[str, Any]) -> Mismatch:
        """From what `from_pretrained(..., output_loading_info=True)` tells."""
        return cls(component, *(tuple(sorted(info[key])) for key in ("missing_keys", "unexpected_keys")))


def refuse_pickles(folder: Path, parts: Iterable[str]) -> None:
    """ValueError for the first of `parts`, folders inside `folder`, whose weights are a pickle and nothing else."""
    for name in parts:
        part = folder / name
        if any(part.glob("*.safetensors")):
            continue
        pickled = sorted(p.name for p in part.iterdir() if p.suffix in PICKLES)
        if pickled:
            raise ValueError(
                f"{part} holds its weights as a pickle ({pickled[0]}), which can run code when it is opened, and is "
                "refused; convert it where you trust it: save_pretrained(folder) of the pipeline or model"
            )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' loading bars off the terminal, and leave their settings as they were."""
    logs = (diffusers.utils.logging, transformers.utils.logging)
    shown = [log.is_progress_bar_enabled() for log in logs]
    try:
        for log in logs:
            log.disable_progress_bar()
        yield
    finally:
        for log, was in zip(logs, shown, strict=True):
            if was:
                log.enable_progress_bar()
