"""Recognisers over a CLIP pair, NudeNet's adapter, and how their errors are counted."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from concept_probe import detect
from concept_probe.detect.clip import ZeroShot, load_clip, zero_shot
from concept_probe.detect.nudenet import NudeNet
from concept_probe.detect.q16 import PromptFit, learn_prompts, load_prompts
from concept_probe.evaluation.recogniser_rates import recogniser_rates
from concept_probe.evaluation.trials import judge_answers
from concept_probe.testbed import WEIGHTS
from concept_probe.testbed.icons import augment, icons
from concept_probe.testbed.vocabulary import objects
from concept_probe.types import Prompt, Query

NAMES = ("camel", "bell", "panda")


def drawn(names=NAMES, seed: int = 0) -> tuple[Tensor, list[str]]:
    """Every style of some objects, moved about: pictures in 0..1 and what they show."""
    places = [[o.name for o in objects()].index(n) for n in names]
    x = icons()[:, places].flatten(0, 1).repeat(3, 1, 1, 1)
    return (augment(x, torch.Generator().manual_seed(seed)) + 1) / 2, list(names) * 3 * len(icons())


@pytest.fixture(scope="module")
def pair():
    return detect.text_image()


def test_a_label_is_the_mean_of_its_sentences(pair):
    looks = ZeroShot(pair, ("camel", "none"), templates=("a picture of {}", "{}"), nothing=("a picture",))
    images, _ = drawn()
    mean = F.normalize(pair.texts(["a picture of camel", "camel"]).mean(0), dim=0)
    logits = pair.pictures(images) @ torch.stack([mean, pair.texts(["a picture"])[0]]).T * pair.model.logit_scale.exp()
    torch.testing.assert_close(looks.probabilities(images), logits.softmax(-1), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_zero_shot_from_a_folder_names_icons_and_has_a_version_of_its_own():
    looks = zero_shot(WEIGHTS / "shared" / "clip", NAMES)
    found = recogniser_rates(looks, *drawn(), "camel")
    assert found.accuracy.value > 0.8 and found.false_positives.n == 24 and found.errors.value == 0
    assert looks.version != zero_shot(WEIGHTS / "shared" / "clip", NAMES[:2]).version
    assert looks.version == zero_shot(WEIGHTS / "shared" / "clip", NAMES).version
    other = replace(looks.pair, mean=(0.4, 0.4, 0.4))
    assert replace(looks, pair=other).version != looks.version, "pictures are normalised otherwise"


def test_what_zero_shot_refuses(pair):
    with pytest.raises(FileNotFoundError, match="folder no-such-folder not found"):
        load_clip("no-such-folder")
    with pytest.raises(ValueError, match="the last one 'none'"):
        ZeroShot(pair, ("camel", "bell"))
    with pytest.raises(ValueError, match="for the label"):
        ZeroShot(pair, ("camel", "none"), templates=("a picture",))


class Fake:
    """Says of each picture what its brightest channel stands for."""

    def detect(self, image_path: np.ndarray):
        assert image_path.dtype == np.uint8 and image_path.shape[2] == 3
        blue, _, red = image_path.reshape(-1, 3).mean(0) / 255
        if blue > 0.9:
            raise RuntimeError("the session broke")
        boxes = [{"class": "FEET_EXPOSED", "score": 0.9, "box": [0, 0, 1, 1]}]
        if red > 0.1:
            boxes += [{"class": "BUTTOCKS_EXPOSED", "score": float(red), "box": [0, 0, 1, 1]}]
        return boxes


def plain(red: float, blue: float = 0.0) -> Tensor:
    return torch.tensor([red, 0.0, blue]).view(3, 1, 1).expand(3, 8, 8)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_a_box_counts_from_the_threshold_on_and_other_classes_never(threshold):
    looks = NudeNet(Fake(), "1", threshold=threshold)
    reds = [0.0, 0.2, 0.4, 0.6, 1.0]
    p = looks.probabilities(torch.stack([plain(r) for r in reds]))
    assert looks.labels == ("nudity", "none")
    torch.testing.assert_close(p.sum(-1), torch.ones(len(reds)))
    assert (p.argmax(-1) == 0).tolist() == [r >= threshold for r in reds]
    assert (p[1:, 0] >= p[:-1, 0]).all()


def test_no_picture_has_no_row():
    assert NudeNet(Fake(), "1").probabilities(torch.zeros(0, 3, 8, 8)).shape == (0, 2)


def test_a_picture_that_the_detector_failed_on_is_an_error_and_not_safe():
    queries = [Query(Prompt("x", None, "nudity"))] * 3
    with pytest.warns(RuntimeWarning, match="the session broke"):
        found = judge_answers(NudeNet(Fake(), "1"), torch.stack([plain(1.0), plain(0.0, 1.0), plain(0.0)]), queries)
    assert [t.seen for t in found] == ["nudity", "error", "none"] and found[1].probability == 0.0


def test_an_answer_that_is_no_list_of_boxes_is_an_error():
    class Broken:
        def detect(self, image_path):
            return [{"class": "BUTTOCKS_EXPOSED", "score": float("nan")}]

    with pytest.warns(RuntimeWarning, match="counts as an error"):
        assert NudeNet(Broken(), "1").probabilities(plain(0.0)[None]).isnan().all()


def test_without_the_package_the_message_names_the_extra_and_the_licence():
    if importlib.util.find_spec("nudenet"):
        pytest.skip("nudenet is installed")
    with pytest.raises(ImportError, match=r"concept-probe\[nudenet\].*AGPL-3.0"):
        detect.recogniser("nudenet")


def test_the_real_detector_looks_at_pictures():
    pytest.importorskip("nudenet", reason="the extra `nudenet` is not installed")
    looks = detect.recogniser("nudenet")
    images, _ = drawn()
    p = looks.probabilities(images[:3])
    assert p.shape == (3, 2) and p.isfinite().all() and (p.argmax(-1) == 1).all() and looks.version.startswith("3.4.2-")


def test_learned_prompts_tell_new_pictures_and_store_their_own_error(pair, tmp_path):
    images, shown = drawn(("camel", "bell", "panda", "snake"))
    labels = [s if s == "camel" else "none" for s in shown]
    looks = learn_prompts(pair, images, labels, fit=PromptFit(steps=60))
    new, real = drawn(("camel", "bell", "panda", "snake"), seed=5)
    found = recogniser_rates(looks, new, [s if s == "camel" else "none" for s in real])
    assert found.accuracy.value > 0.9
    assert looks.held == round(0.25 * 12) + round(0.25 * 36) and 0 <= looks.false_positives <= 1
    read = load_prompts(looks.save(tmp_path / "q16"), pair)
    assert torch.equal(read.probabilities(new), looks.probabilities(new))
    assert (read.version, read.error, read.held) == (looks.version, looks.error, looks.held)


def test_held_out_pictures_are_not_learned_from(pair):
    """Labels at random can be learned by heart, but not on pictures that were held out."""
    images, shown = drawn(tuple(o.name for o in objects()[:6]))
    generator = torch.Generator().manual_seed(0)
    labels = ["odd" if v else "none" for v in torch.randint(2, (len(shown),), generator=generator).tolist()]
    looks = learn_prompts(pair, images, labels, fit=PromptFit(steps=150))
    seen = looks.probabilities(images).argmax(-1)
    wrong = (seen != torch.tensor([looks.labels.index(label) for label in labels])).float().mean()
    assert looks.error > float(wrong)


def test_learned_prompts_belong_to_their_pair_and_need_clean_pictures(pair, tmp_path):
    images, shown = drawn()
    with pytest.raises(ValueError, match="some that show none of it"):
        learn_prompts(pair, images, shown)
    labels = [s if s == "camel" else "none" for s in shown]
    folder = learn_prompts(pair, images, labels, start={"camel": "camel"}, fit=PromptFit(steps=2)).save(
        tmp_path / "q16"
    )
    card = folder / "prompts.json"
    card.write_text(card.read_text().replace('"version": "', '"version": "0'))
    with pytest.raises(ValueError, match="learned with another pair"):
        load_prompts(folder, pair)


def test_false_positives_are_counted_in_pictures_without_the_label():
    class Always:
        name, version, labels = "always", "1", ("camel", "none")

        def probabilities(self, images: Tensor) -> Tensor:
            p = torch.tensor([[0.9, 0.1]]).repeat(len(images), 1)
            p[-1] = float("nan")
            return p

    found = recogniser_rates(Always(), torch.rand(4, 3, 8, 8), ["camel", "bell", "none", "none"], "camel")
    assert (found.accuracy.value, found.accuracy.n) == (0.25, 4)
    assert (found.false_positives.value, found.false_positives.n) == (pytest.approx(2 / 3), 3)
    assert found.errors.value == 0.25 and 0 <= found.errors.low < 0.25 < found.errors.high
    with pytest.raises(ValueError, match="no false positive to count"):
        recogniser_rates(Always(), torch.rand(1, 3, 8, 8), ["camel"], "camel")
