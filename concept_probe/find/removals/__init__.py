"""What stands in the place of a part that is taken out: one table for everything that removes.

`REMOVALS` names the ways. Erasers that ablate, the causal rankings of `find.vectors`, and attribution all take them from
here. `readers` says how a part is read and written at a site; `acting` takes parts out while the model runs.
"""

from __future__ import annotations

from typing import Any

from concept_probe.find.removals.known import Clamp, Mean, Noise, Resample
from concept_probe.find.removals.plain import Project, Reflect, Zero
from concept_probe.find.removals.removal import Removal
from concept_probe.registry import Registry, look_up

REMOVALS: Registry[type[Removal]] = Registry(
    "removals", {kind.name: kind for kind in (Zero, Mean, Resample, Noise, Reflect, Project, Clamp)}
)
"""By name. A package adds one by an entry point of `concept_probe.removals`."""


def removal_of(name: str, **options: Any) -> Removal:
    """The removal of a name, with those of `options` that it has.

    >>> removal_of("reflect", factor=2.0, seed=3)
    Reflect(factor=2.0)

    Raises UnknownName.
    """
    kind = look_up(REMOVALS, name, "removal")
    return kind(**{key: value for key, value in options.items() if key in kind.__dataclass_fields__})


__all__ = ["REMOVALS", "Clamp", "Mean", "Noise", "Project", "Reflect", "Removal", "Resample", "Zero", "removal_of"]
