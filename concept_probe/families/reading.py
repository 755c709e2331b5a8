"""What reading a model from disk or from the hub has in common, whatever its family."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from concept_probe.families.files import damaged_file
from concept_probe.storage import PICKLES, WrongFile


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

    def foreign(self, what: str) -> ValueError:
        """The error for a model that can't be read without code that it brings."""
        return ValueError(
            f"{self.place!r} brings code of its own ({what}), which is never run here, for it could do anything; give a model "
            "that the installed library knows, or load it yourself where you trust it, and adopt it"
        )

    def unreadable(self, problem: Exception) -> FileNotFoundError | WrongFile:
        """The error for what could not be read, with the mend; it names the file that is damaged, where one is."""
        damaged = damaged_file(Path(self.place)) if self.local else None
        if isinstance(damaged, WrongFile):
            return damaged
        problem = damaged or problem
        said = str(problem).strip().splitlines()[0] if str(problem).strip() else ""
        if not isinstance(problem, OSError | ValueError) or not said:
            said = f"{type(problem).__name__} {said}".strip()
        if isinstance(problem, ImportError):
            mend = "install what is missing, or give the model as it was before it was quantised"
        elif self.local:
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


CONSTANTS = ("masked_bias",)
"""Names of tensors in files of earlier versions of transformers (GPT-2 and its kin) that hold a constant and no weight."""


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
        missing, left = (tuple(sorted(info[key])) for key in ("missing_keys", "unexpected_keys"))
        return cls(component, missing, tuple(name for name in left if name.rsplit(".", 1)[-1] not in CONSTANTS))


@contextmanager
def opened(source: ModelSource) -> Iterator[None]:
    """Let a library read `source` inside, without bars; whatever it stumbles over is told in words.

    Raises FileNotFoundError for what can't be read, ValueError where that takes foreign code.
    """
    try:
        with quiet():
            yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as problem:  # a library fails wherever a strange file leads it
        if "trust_remote_code" in str(problem):
            raise source.foreign("auto_map, or a module file") from problem
        raise source.unreadable(problem) from problem


_FILES_OF_WEIGHTS = re.compile(
    r"(?:model|diffusion_pytorch_model)(?:\.(?P<variant>[\w-]+?))?(?:-\d+-of-\d+)?\.safetensors"
)


def variant_of(folder: Path) -> str | None:
    """The variant that the weights in `folder` are of; None for those without a name, and where there are none.

    Raises ValueError where there are several, none of them without a name.
    """
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    found = {match["variant"] for match in map(_FILES_OF_WEIGHTS.fullmatch, names) if match}
    if None in found or not found:
        return None
    if len(found) > 1:
        raise ValueError(
            f"{folder} holds the weights in several variants ({', '.join(sorted(filter(None, found)))}) and none without a "
            "name; keep the files of one, or rename them to names without a variant"
        )
    return found.pop()


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
