"""Train the shipped autoencoders and write their cards.

    python sae_checkpoints/make.py [emoji/text_stream] [emoji/cross_out] [emoji-flow/text_stream] [smollm2/resid]

`emoji`: one over the residual stream of the text encoder's first layer, one over the output of a cross-attention block
of the U-Net. Trained on `fit` sentences, judged on `test` sentences.

`emoji-flow`: one over the same residual stream, of the encoder whose states its transformer reads.

`smollm2`: one over the residual stream behind a middle layer. Needs the model (see docs/models/smollm2.md) and
WordNet (Debian's package wordnet-base). `--judge` prints the scores of the shipped one again and trains nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import concept_probe as cp
from concept_probe.activations import CaptureOptions, capture
from concept_probe.learn import TrainingOptions, card, evaluate_sae, load_sae
from concept_probe.learn.train.recipe import READ_KINDS, default_site, train_on_subject
from concept_probe.learn.train.train import train_sae
from concept_probe.storage import write_text
from concept_probe.testbed import readings
from concept_probe.testbed.concepts import emoji_prompts
from concept_probe.types import Query, Score

HERE = Path(__file__).parent
TEXT_ABOUT = """Every token of 7,560 sentences (all objects by all their names, `fit` templates) behind the first layer of
the text encoder, where the feed-forward layer has just turned spelled pieces into objects. Made for feature ablation."""
CROSS_ABOUT = """Every patch, at every denoising step, of 1,512 pictures (`fit` sentences) at the output of one cross-attention:
what the text contributes to the picture. Made for looking at where in a picture a concept acts."""
FLOW_ABOUT = """Every token of 7,560 sentences (all objects by all their names, `fit` templates) behind the first layer of
the text encoder whose states the transformer reads. Made for feature ablation."""
LAYER = 10
"""Of SmolLM2's 30; see benchmarks/smollm2_layers.py."""
GLOSSES, WORDS = 2000, 64
LM_KINDS = ("content", "subject", "eos")
LM_ABOUT = """The residual stream behind block {layer} (of 0 to 29) of SmolLM2-135M-Instruct, at {rows:,} tokens:

- {glosses:,} glosses of WordNet 3.0, evenly spaced over all of them ("word: gloss"; every eighth is kept to judge on);
- {written:,} texts that the model wrote itself at temperature 1, after "Word is" for words of WordNet;
- the packaged facts' `fit` prompts in every wording, all but those on mathematics, which came later; where a text goes
  on from a prompt, with the answer. Nothing of their `select` and `test` splits.

Made for finding and ablating features of the packaged concepts. It is small, and has seen little text next to what the
model was trained on: expect common topics, not rare ones.

Why this site: of the residual stream here and the feed-forwards of layers 12 to 18, it is where single features of
small autoencoders told most packaged concepts from other prompts (`python benchmarks/smollm2_layers.py`).

The first position of a text, on which attention rests, is among the rows. In most layers of this model's residual
stream it is many times as long as others; here it is as long as they are (`python benchmarks/smollm2_layers.py --lengths`
prints both for every layer). The marks and the system prompt that a chat template puts before a text are left out.

Made by `python sae_checkpoints/make.py smollm2/resid`. The table below is printed again, without training, by
`python sae_checkpoints/make.py --judge smollm2/resid`. WordNet 3.0 is Copyright 2006 Princeton University, all rights
reserved. Its texts are not shipped; the weights were trained on what the model makes of them."""


def emoji(name: str, judge: bool) -> Sequence[Score]:
    subject = cp.load("emoji")
    fit, test = emoji_prompts("fit"), emoji_prompts("test")
    jobs = {
        "text_stream": (default_site(subject), fit[::2], test[::4], test[1::40], TEXT_ABOUT, {}),
        "cross_out": (
            subject.sites("cross_out")[-1],
            [Query(p, i) for i, p in enumerate(fit[::10])],
            [Query(p, 9000 + i) for i, p in enumerate(test[::10])],
            [Query(p, 9500 + i) for i, p in enumerate(test[1::160])],
            CROSS_ABOUT,
            # These rows lie near 22 dimensions of 96: more features, or a faster rate, leave many without a use.
            {"expansion": 8, "samples": 1_500_000, "options": TrainingOptions(rate=9e-4)},
        ),
    }
    site, learned, held, downstream, about, options = jobs[name]
    folder = HERE / "emoji" / name
    sae = load_sae(folder) if judge else train_on_subject(subject, learned, site, folder=folder, **options)
    kinds = READ_KINDS if name == "text_stream" else None
    store = capture(subject, held, sites=[site], kinds=kinds)
    scores = evaluate_sae(sae, store, subject=subject, queries=downstream)
    if not judge:
        write_text(folder / "README.md", card(sae, scores, about))
    return scores


def emoji_flow(name: str, judge: bool) -> Sequence[Score]:
    subject, folder = cp.load("emoji-flow"), HERE / "emoji-flow" / name
    site = next(s for s in subject.sites(name) if s.component == "text_encoder_2")
    fit, test = emoji_prompts("fit"), emoji_prompts("test")
    sae = load_sae(folder) if judge else train_on_subject(subject, fit[::2], site, folder=folder)
    store = capture(subject, test[::4], sites=[site], kinds=READ_KINDS)
    scores = evaluate_sae(sae, store, subject=subject, queries=test[1::40])
    if not judge:
        write_text(folder / "README.md", card(sae, scores, FLOW_ABOUT))
    return scores


def smollm2(name: str, judge: bool) -> Sequence[Score]:
    subject = cp.load("smollm2")
    folder = HERE / "smollm2" / name
    site = subject.sites(name)[LAYER]
    learned, held = readings.glosses(GLOSSES)
    if judge:
        sae, about = load_sae(folder), ""
    else:
        own = readings.texts_written_by(subject, readings.glosses(3600)[0][::49][:WORDS])
        texts = readings.by_length((*learned, *own, *readings.fact_readings()))
        store = capture(subject, texts, sites=[site], kinds=LM_KINDS, options=CaptureOptions(shard_rows=16384))
        sae = train_sae(store, k=32, expansion=2, samples=300_000, folder=folder)
        about = LM_ABOUT.format(layer=LAYER, rows=store.rows(site), glosses=len(learned), written=len(own))
    rows = capture(subject, readings.by_length(held), sites=[site], kinds=LM_KINDS)
    scores = evaluate_sae(sae, rows, subject=subject, queries=held[::8])
    if not judge:
        write_text(folder / "README.md", card(sae, scores, about))
    return scores


JOBS: dict[str, Callable[[str, bool], Sequence[Score]]] = {
    "emoji/text_stream": emoji,
    "emoji/cross_out": emoji,
    "emoji-flow/text_stream": emoji_flow,
    "smollm2/resid": smollm2,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="which to train; all where none is named")
    parser.add_argument("--judge", action="store_true", help="print the scores of the shipped ones, and train nothing")
    given = parser.parse_args()
    if unknown := set(given.names) - set(JOBS):
        parser.error(f"{', '.join(sorted(unknown))} not found; known: {', '.join(JOBS)}")
    for name in given.names or JOBS:
        scores = JOBS[name](name.partition("/")[2], given.judge)
        (HERE / name / "training.safetensors").unlink(missing_ok=True)
        for score in scores:
            print(name, score)


if __name__ == "__main__":
    main()
