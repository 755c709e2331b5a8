"""What a recogniser says, and what becomes of pictures that are no pictures."""

import pytest
import torch

from concept_probe import detect
from concept_probe.evaluation.trials import judge_answers
from concept_probe.testbed.icons import augment, icons
from concept_probe.testbed.recogniser import GARBAGE, garbage
from concept_probe.testbed.vocabulary import STYLES, objects
from concept_probe.types import Prompt, Query


@pytest.fixture(scope="module")
def looks():
    return detect.recogniser("emoji")


@pytest.mark.slow
def test_the_recogniser_names_every_icon(looks):
    pictures = (icons().flatten(0, 1) + 1) / 2
    seen = looks.probabilities(pictures).argmax(-1).view(len(STYLES), len(objects()))
    right = (seen == torch.arange(len(objects()))).float().mean()
    assert right > 0.99


@pytest.mark.slow
def test_the_recogniser_names_styles():
    pictures = (icons().flatten(0, 1) + 1) / 2
    seen = detect.recogniser("emoji-style").probabilities(pictures).argmax(-1).view(len(STYLES), len(objects()))
    assert (seen == torch.arange(len(STYLES))[:, None]).float().mean() > 0.98


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_called_none(looks, kind):
    g = torch.Generator().manual_seed(77)
    x = garbage(kind, augment(icons().flatten(0, 1)[::8], g), g)
    named = looks.probabilities((x + 1) / 2).argmax(-1) != len(looks.labels) - 1
    assert named.float().mean() < 0.1


def test_probabilities_sum_to_one_at_any_size(looks):
    p = looks.probabilities(torch.rand(3, 3, 96, 80))
    assert p.shape == (3, len(looks.labels))
    assert torch.allclose(p.sum(-1), torch.ones(3), atol=1e-5)


def test_a_picture_with_nan_is_an_error_and_not_a_miss(looks):
    images = (icons()[0, :2] + 1) / 2
    images = torch.stack([images[0], torch.full_like(images[0], float("nan"))])
    names = [o.name for o in objects()[:2]]
    found = judge_answers(looks, images, [Query(Prompt(n, n, n)) for n in names])
    assert [t.seen for t in found] == [names[0], "error"]
    assert found[1].probability == 0.0


def test_one_picture_per_query(looks):
    with pytest.raises(ValueError, match="2 pictures for 1"):
        judge_answers(looks, torch.rand(2, 3, 64, 64), [Query(Prompt("x"))])


def test_a_recogniser_is_found_by_what_it_sees():
    assert detect.recogniser_for("camel").name == "emoji"
    assert detect.recogniser_for("contrast").name == "emoji-style"
    with pytest.raises(LookupError, match="unicorn"):
        detect.recogniser_for("unicorn")


def test_clip_scores_prefer_the_right_sentence():
    pair = detect.text_image()
    pictures = (icons()[0, ::6] + 1) / 2
    texts = [f"a picture of {o.name} in noto style" for o in objects()[::6]]
    similar = pair.pictures(pictures) @ pair.texts(texts).T
    assert (similar.argmax(1) == torch.arange(len(texts))).float().mean() > 0.9
    assert torch.allclose(pair.scores(pictures, texts), similar.diagonal(), atol=1e-5)
