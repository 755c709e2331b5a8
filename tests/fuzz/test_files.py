"""Whatever happens to a file, it says what was written, or one of three errors names it."""

from __future__ import annotations

import random
import shutil
import warnings

import pytest

from concept_probe.registry import UnknownName
from concept_probe.storage import CorruptFile, MissingFile, WrongFile
from tests.fuzz.formats import FORMATS, mutated


def tried(name: str, folder, count: int, seed: int) -> dict[str, int]:
    """What came of `count` mutations of one file; fails on the first that came out wrong."""
    form, chance = FORMATS[name], random.Random(f"{name} {seed}")
    whole = folder / "whole"
    form.write(whole)
    said, data = form.read(whole), (whole / form.file).read_bytes()
    outcomes = {"equal": 0, "named": 0, "other": 0}
    for number in range(count):
        place = folder / "harmed"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(whole, place)
        harmed = mutated(data, chance)
        (place / form.file).write_bytes(harmed)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                again = form.read(place)
        except (CorruptFile, MissingFile, WrongFile) as error:
            assert str(place) in str(error) or form.file in str(error), f"number {number} names no file: {error}"
            outcomes["named"] += 1
            continue
        except UnknownName as error:  # of what a file names by a word that is not known
            assert str(place) in str(error), f"number {number} names no file: {error}"
            outcomes["named"] += 1
            continue
        except ValueError as error:  # what people write may be whole, and say what can't be
            assert type(error) is ValueError and not form.sealed, f"number {number}: {error!r} for {harmed[:300]!r}"
            outcomes["named"] += 1
            continue
        outcomes["equal" if again == said else "other"] += 1
        kept = again == said or (form.grows and said.startswith(again.removesuffix("]")))
        assert kept or not form.sealed, f"number {number}: {again[:500]} for {harmed[:2000]!r}"
    return outcomes


@pytest.mark.parametrize("name", FORMATS)
def test_a_few_mutations(name, tmp_path):
    assert tried(name, tmp_path, 12, seed=0)["named"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_many_mutations(name, tmp_path):
    outcomes = tried(name, tmp_path, 300, seed=1)
    assert outcomes["named"] > 100, outcomes
