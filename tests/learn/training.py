"""Training with all its options side by side, for tests that vary one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from concept_probe.learn import Run, Sae, TrainingOptions, Transcoder, train_sae, train_saes, train_transcoder
from concept_probe.learn.train.settings import PassOptions
from concept_probe.types import Site


def _parted(kind: type[PassOptions], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` with what is a field of `kind` put into one."""
    names = {field.name for field in fields(kind)}
    rest = {name: value for name, value in given.items() if name not in names}
    return {**rest, "options": kind(**{name: value for name, value in given.items() if name in names})}


def trained(source: Any, **given: Any) -> Sae:
    """As `train_sae`, with the fields of `TrainingOptions` as keywords."""
    return train_sae(source, **_parted(TrainingOptions, given))


def trained_transcoder(source: Any, sites: tuple[Site, Site], **given: Any) -> Transcoder:
    """As `train_transcoder`, with the fields of `TrainingOptions` as keywords."""
    return train_transcoder(source, sites, **_parted(TrainingOptions, given))


def trained_together(source: Any, runs: Mapping[str, Run], **given: Any) -> dict[str, Sae | Transcoder]:
    """As `train_saes`, with the fields of `PassOptions` as keywords."""
    return train_saes(source, runs, **_parted(PassOptions, given))
