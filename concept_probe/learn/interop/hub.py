"""An autoencoder and its card, as a repository of the model hub."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

from concept_probe.learn.card import card
from concept_probe.learn.interop.lens import save_sae
from concept_probe.learn.sae import Sae
from concept_probe.storage import write_text
from concept_probe.types import Score

FRONT = "---\nlibrary_name: saelens\ntags:\n- sparse-autoencoder\n- concept-probe\n---\n\n"
"""The hub reads this block of a card: it makes the repository turn up in searches."""


class Hub(Protocol):
    """What is asked of `huggingface_hub.HfApi`."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> object: ...

    def upload_folder(
        self, *, repo_id: str, folder_path: str, path_in_repo: str | None, commit_message: str
    ) -> object: ...


def push_to_hub(
    sae: Sae,
    repo: str,
    *,
    scores: Sequence[Score] = (),
    description: str = "",
    path: str | None = None,
    visibility: Literal["private", "public"] = "private",
    hub: Hub | None = None,
) -> str:
    """Upload the autoencoder and a card with its scores, and return the repository's address.

    >>> push_to_hub(sae, "me/emoji-sae", scores=evaluate_sae(sae, held), description="Trained on ...")

    The files are those of `save_sae` and a README.md; `path` is a folder of the repository, for several
    autoencoders in one. A repository that is not there yet is made, private unless asked otherwise; one
    that is there keeps its visibility. `hub` is a `huggingface_hub.HfApi`, by default one with the token
    of this machine. Raises ValueError for a name that is not owner/name, before anything is sent.
    """
    owner, slash, name = repo.partition("/")
    if not (owner and slash and name) or "/" in name:
        raise ValueError(f"repository {repo!r} is not of the form owner/name; nothing was sent")
    if hub is None:
        from huggingface_hub import HfApi  # the network is for this function alone

        hub = HfApi()
    with tempfile.TemporaryDirectory(prefix="concept_probe-") as folder:
        save_sae(sae, folder)
        write_text(Path(folder) / "README.md", FRONT + card(sae, scores, description, repo=repo, path=path))
        address = hub.create_repo(repo, private=visibility == "private", exist_ok=True)
        hub.upload_folder(
            repo_id=repo,
            folder_path=folder,
            path_in_repo=path,
            commit_message=f"Sparse autoencoder over {sae.site}",
        )
    return str(address)
