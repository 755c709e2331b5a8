"""The card of a checkpoint: what it is, how good it is, how to load it."""

from __future__ import annotations

from collections.abc import Sequence

from concept_probe.learn.sae import Sae
from concept_probe.types import Score

MEANING = {
    "fvu": "variance of held-out rows that the reconstruction leaves unexplained",
    "l0": "features that fire per row",
    "dead": "features that fire on no held-out row",
    "downstream": "change of the subject's output when the reconstruction replaces the activation",
}


def card(sae: Sae, scores: Sequence[Score], description: str) -> str:
    """Markdown for one checkpoint; `description` says in the author's words what it was trained on and is for."""
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
            "| metric | meaning | value | 95 % interval | control | better | prompts |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [_row(score) for score in scores]
        lines += ["", "Controls: an untrained autoencoder of the same shape; for `downstream`, the mean in its place."]
    lines += ["", "## Load it", "", "```python", "from concept_probe.learn import load_sae", ""]
    lines += ['sae = load_sae("this folder")', "```", ""]
    lines += ['In the format of sae-lens 6: `sae_lens.SAE.load_from_disk("this folder")` gives the same codes.', ""]
    return "\n".join(lines)


def _row(score: Score) -> str:
    control = "" if score.control is None else f"{score.control:.4g}"
    meaning = f"{MEANING[score.name]} ({score.unit})" if score.name in MEANING else score.unit
    interval = f"{score.low:.4g} to {score.high:.4g}"
    return f"| {score.name} | {meaning} | {score.value:.4g} | {interval} | {control} | {score.better} | {score.n} |"
