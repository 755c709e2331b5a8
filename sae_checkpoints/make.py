"""Train the shipped autoencoders of `emoji` and write their cards.

    python sae_checkpoints/make.py [text_stream] [cross_out]

One over the residual stream of the text encoder's first layer, one over the output of a cross-attention
block of the U-Net. Trained on `fit` sentences, judged on `test` sentences.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import concept_probe as cp
from concept_probe.capture import capture
from concept_probe.learn import card, evaluate_sae
from concept_probe.learn.recipe import READ_KINDS, default_site, train_on_subject
from concept_probe.testbed.concepts import prompts
from concept_probe.types import Query

HERE = Path(__file__).parent / "emoji"
TEXT_ABOUT = """Every token of 7,560 sentences (all objects by all their names, `fit` templates) behind the first layer of
the text encoder, where the feed-forward layer has just turned spelled pieces into objects. Made for feature ablation."""
CROSS_ABOUT = """Every patch, at every denoising step, of 1,512 pictures (`fit` sentences) at the output of one cross-attention:
what the text contributes to the picture. Made for looking at where in a picture a concept acts."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="which to train; all where none is named")
    chosen = parser.parse_args().names
    subject = cp.load("emoji")
    fit, test = prompts("fit"), prompts("test")
    text = default_site(subject)
    cross = subject.sites("cross_out")[-1]
    jobs = {
        "text_stream": (text, fit[::2], test[::4], test[1::40], TEXT_ABOUT, {}),
        "cross_out": (
            cross,
            [Query(p, i) for i, p in enumerate(fit[::10])],
            [Query(p, 9000 + i) for i, p in enumerate(test[::10])],
            [Query(p, 9500 + i) for i, p in enumerate(test[1::160])],
            CROSS_ABOUT,
            # These rows lie near 22 dimensions of 96: more features, or a faster rate, leave many without a use.
            {"expansion": 8, "samples": 1_500_000, "rate": 9e-4},
        ),
    }
    if unknown := set(chosen) - set(jobs):
        parser.error(f"{', '.join(sorted(unknown))} not found; known: {', '.join(jobs)}")
    for name, (site, learned, held, downstream, about, options) in jobs.items():
        if chosen and name not in chosen:
            continue
        sae = train_on_subject(subject, learned, site, folder=HERE / name, **options)
        kinds = READ_KINDS if name == "text_stream" else None
        scores = evaluate_sae(
            sae, capture(subject, held, sites=[site], kinds=kinds), subject=subject, queries=downstream
        )
        (HERE / name / "README.md").write_text(card(sae, scores, about))
        (HERE / name / "training.safetensors").unlink(missing_ok=True)
        for score in scores:
            print(name, score)


if __name__ == "__main__":
    main()
