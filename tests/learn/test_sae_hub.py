"""What would be uploaded: loads again, and has a card."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from concept_probe.learn import TopK, load_sae, push_to_hub
from concept_probe.learn.sae import Sae
from concept_probe.types import Score
from tests.learn.planted import SITE


@dataclass
class FakeHub:
    """Keeps what is uploaded in a folder; signatures as in `huggingface_hub.HfApi`."""

    place: Path
    calls: list[dict] = field(default_factory=list)

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> str:
        self.calls.append({"repo_id": repo_id, "private": private, "exist_ok": exist_ok})
        return f"https://hub.test/{repo_id}"

    def upload_folder(self, *, repo_id: str, folder_path: str, path_in_repo: str | None, commit_message: str) -> object:
        shutil.copytree(folder_path, self.place / repo_id / (path_in_repo or ""), dirs_exist_ok=True)
        self.calls.append({"message": commit_message, "folder": folder_path})
        return None


def sae() -> Sae:
    g = torch.Generator().manual_seed(0)
    weights = {"W_enc": torch.randn(6, 12, generator=g), "b_enc": torch.randn(12, generator=g)}
    weights |= {"W_dec": torch.randn(12, 6, generator=g), "b_dec": torch.randn(6, generator=g)}
    return Sae(SITE, TopK(3), **weights, scale=2.0, made_by={"recipe": "test", "seed": 3})


def test_what_is_uploaded_loads_again_and_nothing_is_left_behind(tmp_path):
    hub, mine = FakeHub(tmp_path), sae()
    score = Score("fvu", 0.1, 0.05, 0.2, 40, "fraction of variance", "lower", 1.1)
    address = push_to_hub(mine, "me/saes", scores=[score], description="Made for a test.", path="layer.0", hub=hub)
    assert address == "https://hub.test/me/saes"
    again = load_sae(tmp_path / "me" / "saes" / "layer.0")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), mine.parameters(), strict=True))
    assert (again.site, again.made_by) == (mine.site, mine.made_by)
    assert hub.calls[0] == {"repo_id": "me/saes", "private": True, "exist_ok": True}
    assert str(SITE) in hub.calls[1]["message"] and not Path(hub.calls[1]["folder"]).exists()


def test_the_card_says_what_it_is_and_how_to_load_it(tmp_path):
    hub = FakeHub(tmp_path)
    score = Score("fvu", 0.1, 0.05, 0.2, 40, "fraction of variance", "lower", 1.1)
    push_to_hub(sae(), "me/saes", scores=[score], description="Made for a test.", path="layer.0", hub=hub)
    text = (tmp_path / "me/saes/layer.0/README.md").read_text(encoding="utf-8")
    assert text.startswith("---\nlibrary_name: saelens\n") and text.count("---\n") >= 2
    for part in (
        "Made for a test.",
        "| fvu |",
        "for `fvu`, an untrained autoencoder",
        str(SITE),
        'snapshot_download("me/saes") + "/layer.0"',
    ):
        assert part in text, part


def test_visibility_is_passed_on(tmp_path):
    hub = FakeHub(tmp_path)
    push_to_hub(sae(), "me/saes", visibility="public", hub=hub)
    assert hub.calls[0]["private"] is False and (tmp_path / "me/saes/cfg.json").is_file()


@pytest.mark.parametrize("name", ["saes", "/saes", "me/", "me/saes/layer"])
def test_a_name_that_is_no_repository_is_refused_before_anything_is_sent(name, tmp_path):
    hub = FakeHub(tmp_path)
    with pytest.raises(ValueError, match="is not of the form owner/name; nothing was sent"):
        push_to_hub(sae(), name, hub=hub)
    assert not hub.calls


def test_the_hub_has_what_is_asked_of_it():
    """The fake above stands for the real client: same parameters."""
    import inspect

    from huggingface_hub import HfApi

    for name in ("create_repo", "upload_folder"):
        asked = set(inspect.signature(getattr(FakeHub, name)).parameters) - {"self"}
        assert asked <= set(inspect.signature(getattr(HfApi, name)).parameters), name
