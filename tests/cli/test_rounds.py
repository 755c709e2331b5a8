"""When `audit` and `run` ask in rounds, and when at once."""

import pytest

import concept_probe as cp
from concept_probe.cli.shared.rounds import rounds_of
from concept_probe.evaluation.looks import errors_of_looks, fewest_without_a_hit


def asked(about, *, looks=None, pictures=None, seconds=None, at_once=False, prompts=None, answers="pictures"):
    return rounds_of(looks, pictures, seconds, at_once, about, prompts, answers)


def test_pictures_are_asked_for_in_rounds_where_enough_prompts_name_the_concept(capsys):
    many = asked(cp.concept("camel", more=True))
    assert many is not None and many.looks == 3 and many.pictures is None
    assert asked(cp.concept("camel", "emoji-untaught", more=True)) is not None
    assert not capsys.readouterr().err
    needed = fewest_without_a_hit(errors_of_looks(3)[-1], 0.25)
    few = cp.concept("camel", "emoji-untaught")
    assert len(few.target.test) < needed
    assert asked(few) is None
    said = capsys.readouterr().err
    assert f"{len(few.target.test)} test prompts" in said and str(needed) in said, "and it is told why"


def test_fewer_prompts_by_option_are_asked_at_once(capsys):
    assert asked(cp.concept("camel", more=True), prompts=4) is None
    assert "4 test prompts" in capsys.readouterr().err


def test_texts_are_asked_at_once_unless_rounds_are_wanted():
    about = cp.concept("mathematics", "smollm2")
    assert asked(about, answers="texts") is None
    rounds = asked(about, answers="texts", looks=2)
    assert rounds is not None and rounds.looks == 2


OPTIONS = ("looks", "pictures", "seconds")


@pytest.mark.parametrize("option", OPTIONS)
def test_what_is_asked_at_once_has_no_rounds(option):
    looks, pictures, seconds = (1 if option == name else None for name in OPTIONS)
    about = cp.concept("camel", more=True)
    assert asked(about, at_once=True) is None
    with pytest.raises(ValueError, match=r"--at-once asks everything.*give one"):
        rounds_of(looks, pictures, seconds, True, about, None, "pictures")
    few = cp.concept("camel", "emoji-untaught")
    rounds = rounds_of(looks, pictures, seconds, False, few, None, "pictures")
    assert rounds is not None and getattr(rounds, option) == 1, (
        "a wish for rounds counts, however few prompts there are"
    )
