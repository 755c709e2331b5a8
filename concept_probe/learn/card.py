"""The card of a checkpoint: what it is, how good it is, how to load it."""

from __future__ import annotations

from collections.abc import Sequence

from concept_probe.learn.sae import Sae
from concept_probe.types import Score

UNTRAINED = "an untrained autoencoder of the same shape"
MEANING = {
    "fvu": ("variance of held-out rows that the reconstruction leaves unexplained", UNTRAINED),
    "l0": ("features that fire per row", UNTRAINED),
    "dead": ("features that fire on no held-out row", UNTRAINED),
    "downstream": ("change of the subject's output when the reconstruction replaces the activation", "the mean in its place"),
    "kl": ("divergence of the next token's distribution when the reconstruction replaces the activation", "the mean in its place"),
    "ce": ("likelihood that the text's own next tokens lose when the reconstruction replaces the activation", "the mean in its place"),
    "dense": ("features that fire on more than a tenth of held-out rows", UNTRAINED),
    "rare": ("features that fire on fewer than one in 10,000 held-out rows", UNTRAINED),
    "nearest cosine": ("mean cosine of a decoder row with the row most like it", "random unit rows"),
    "stability": ("mean over features of the largest cosine with a feature of another seed", "random unit rows"),
    "shared": ("features whose largest cosine with a feature of another seed is at least 0.7", "random unit rows"),
}  # fmt: skip
"""Name of a score to what it means and what its control is."""


def card(
    sae: Sae, scores: Sequence[Score], description: str, *, repo: str | None = None, path: str | None = None
) -> str:
    """Markdown for one checkpoint; `description` says in the author's words what it was trained on and is for.

    With `repo` (and `path`, a folder in it) it says how to load the checkpoint from the hub.
    """
    left_out = {"site", "d", "k", "prompts"}
    facts: dict[str, object] = {
        "site": f"`{sae.site}`",
        "architecture": sae.activation.architecture + ("" if sae.k is None else f", k = {sae.k}"),
        "width of the site d": sae.d,
        "features f": sae.width,
        "weights": str(sae.W_enc.dtype).removeprefix("torch."),
        "input scale (folded into the weights on disk)": f"{sae.scale:g}",
        **{name.replace("_", " "): value for name, value in sae.made_by.items() if name not in left_out},
    }
    lines = [f"# Sparse autoencoder over `{sae.site}`", "", description.strip(), "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in facts.items()]
    if scores:
        lines += ["", "## Measured on held-out prompts", ""]
        lines += [
            "| metric | meaning | value | 95 % interval | control | better | n |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [_row(score) for score in scores]
        lines += ["", f"Controls: {_controls(scores)}."]
    lines += ["", "## Load it", "", "```python", *_loading(repo, path), "```", ""]
    if repo is None:
        lines += ['In the format of sae-lens 6: `sae_lens.SAE.load_from_disk("this folder")` gives the same codes.', ""]
    else:
        lines += ["In the format of sae-lens 6: `sae_lens.SAE.load_from_disk(folder)` gives the same codes.", ""]
    return "\n".join(lines)


def _loading(repo: str | None, path: str | None) -> list[str]:
    if repo is None:
        return ["from concept_probe.learn import load_sae", "", 'sae = load_sae("this folder")']
    inside = f' + "/{path}"' if path else ""
    return [
        "from huggingface_hub import snapshot_download",
        "from concept_probe.learn import load_sae",
        "",
        f'folder = snapshot_download("{repo}"){inside}',
        "sae = load_sae(folder)",
    ]


def _controls(scores: Sequence[Score]) -> str:
    """Each kind of control once, with the names of the scores that it belongs to."""
    kinds: dict[str, list[str]] = {}
    for score in scores:
        if score.control is not None and score.name in MEANING:
            kinds.setdefault(MEANING[score.name][1], []).append(f"`{score.name}`")
    return "; ".join(f"for {', '.join(names)}, {what}" for what, names in kinds.items()) or "none"


def _row(score: Score) -> str:
    control = "" if score.control is None else f"{score.control:.4g}"
    meaning = f"{MEANING[score.name][0]} ({score.unit})" if score.name in MEANING else score.unit
    interval = f"{score.low:.4g} to {score.high:.4g}"
    return f"| {score.name} | {meaning} | {score.value:.4g} | {interval} | {control} | {score.better} | {score.n} |"
