"""The sparse autoencoders that come with the package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from concept_probe.learn.interop import load_sae
from concept_probe.learn.sae import Sae
from concept_probe.registry import UnknownName

_PACKAGE = Path(__file__).parents[1]


def checkpoint_folder() -> Path:
    """The folder of shipped checkpoints: inside an installed package, beside the package in a source tree."""
    inside = _PACKAGE / "sae_checkpoints"
    return inside if inside.is_dir() else _PACKAGE.parent / "sae_checkpoints"


def over_text(saes: Sequence[Sae]) -> tuple[Sae, ...]:
    """The autoencoders over text encoders, where concepts are made; all of them where there is none."""
    return tuple(s for s in saes if s.site.component.startswith("text_encoder")) or tuple(saes)


def shipped_saes(subject: str) -> tuple[Sae, ...]:
    """Every shipped autoencoder of the subject called `subject`, by folder name.

    Raises UnknownName where there is none: train one with `train_sae`.
    """
    folders = sorted(p.parent for p in checkpoint_folder().glob(f"{subject}/*/cfg.json"))
    if not folders:
        known = sorted({p.parent.parent.name for p in checkpoint_folder().glob("*/*/cfg.json")})
        mend = "give one by `--sae` or `saes=`, or train one: `run --retrain`, or train_sae"
        raise UnknownName("shipped autoencoder of model", subject, known, mend)
    return tuple(load_sae(folder) for folder in folders)
