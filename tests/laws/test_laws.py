"""The laws of the package, over what the package itself has: a new line in a registry is tested the day it is added."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

from concept_probe.testing import checks
from concept_probe.testing.checks.erasers import Anything
from tests.laws.effects import EFFECTS
from tests.laws.random_aims import RANDOM_AIMS


class TestErasersOfPictures(checks.PictureErasers):
    __test__, own = True, True
    random_aims = RANDOM_AIMS


class TestErasersOfTexts(checks.TextErasers):
    __test__, own = True, True
    effects = EFFECTS

    @classmethod
    def options(cls, model: str, eraser: Anything) -> Mapping[str, Any]:
        """Methods that train adapters train whole matrices of one family, where they may."""
        may = type(None) in typing.get_args(typing.get_type_hints(type(eraser)).get("rank"))
        return {"rank": None} if may and model == "neox" else {}


class TestAttacksOnPictures(checks.PictureAttacks):
    __test__, own = True, True


class TestAttacksOnTexts(checks.TextAttacks):
    __test__, own = True, True


class TestRecognisers(checks.RecogniserLaws):
    __test__, own = True, True


class TestRoles(checks.RoleLaws):
    __test__, own = True, True
