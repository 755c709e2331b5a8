"""What the names in a report mean, in one sentence each, for a reader who did not run the audit."""

from __future__ import annotations

import re
from collections.abc import Iterable

KIND_MEANINGS = {
    "target": "prompts that name the concept",
    "paraphrases": "prompts that use another word for it",
    "implicit": "prompts that describe it and never name it",
    "composed": "prompts that name it and a style",
    "neighbours": "prompts for similar things, which must stay",
    "unrelated": "prompts for other things, which must stay",
    "recovery": "what attacks made the erased model draw",
}
"""Kind of prompt or picture to what it is."""

METRIC_MEANINGS = {
    "detection rate": "Share of pictures, or texts, that show the concept.",
    "recognised as asked": "Share of pictures, or texts, that show what the prompt asked for.",
    "seen where it was not asked for": "Share of pictures, or texts, for other things that show the concept.",
    "recogniser failed": "Share of pictures that the recogniser could not read.",
    "AUROC of its own probe (other words)": (
        "How well a linear probe, fitted on the model's own activations, tells the concept from other things in words "
        "that it was not fitted on: 1 always, 0.5 by chance."
    ),
    "AUROC of its own probe (same words)": (
        "The same in the words that it was fitted on. Words alone can be read in any model, so this seldom says much."
    ),
    "AUROC of the probe from before": (
        "How well the probe of the untouched model reads the erased model: low beside a high probe of its own means "
        "that the concept moved, and is not gone."
    ),
    "detection, continued by the subject as it was": (
        "Detection rate when the untouched model goes on from the erased activations of this place: what it still "
        "draws was not erased up to there."
    ),
    "share of its .* features that fire": (
        "Of the autoencoder features that were found for the concept, the share that is above 0 anywhere."
    ),
    "largest activation of its .* features": "How strongly those features fire at most, in the mean.",
    "share of activation norm out of the range before": (
        "How far activations leave the range that the untouched model uses; a large share means that the rest of the "
        "model has to guess."
    ),
    "share of the concept vectors left": "How much of every concept vector that was found is still in the weights.",
    "Jaccard index of the tokens that the vectors promote most": (
        "How many of the tokens that a concept vector promotes most are the same as before: 1 all of them."
    ),
    "probability of the gold answer": "How likely the right answer is to the model, whether it writes it or not.",
    "1 / rank of the gold answer's first token": "1 where no token is likelier than the right answer's first one.",
    "perplexity of texts to be kept": (
        "How many tokens the model wavers between, in the mean, as it reads prompts for other things with their answers; "
        "what is read after each text's first word counts."
    ),
    "ROUGE-L with what was written before": (
        "How much of what the untouched model wrote stands, in order, in what is written now (F1 of the longest common "
        "subsequence of words): 1 is the same text."
    ),
    "BLEU with what was written before": "The same by runs of one to four words that both texts have.",
    "depth": (
        "The untouched model goes on from the erased activations of one block after the other; this share of the "
        "likelihood of the answer's first token is lost, in the mean over blocks: 1 if the very first block shows the "
        "erasure, 0 if none does."
    ),
    "cosine with before": "Direction of a concept vector in the weights, compared with before: 1 is the same.",
    "relative L2 from before": "How far a concept vector moved, in units of its length before.",
    "detection with the concept vectors alone put back": (
        "Detection rate with nothing but the concept vectors given back to the erased weights."
    ),
    "success of paraphrases": (
        "Chance that at least one of so many queries, in paraphrases and descriptions, shows the concept."
    ),
    "success of embedding_inversion": (
        "Share of pictures that show the concept after a new word was learned for it from a few pictures, weights fixed."
    ),
    "success of relearning": (
        "Share of pictures, or texts, that show the concept after training on a few pictures of it, or on answers to "
        "other facts."
    ),
    "success of lora_relearning": "The same with adapters of low rank in place of the weights.",
    "success of role_prompts": "Chance that one of so many questions, asked behind a role, is answered rightly.",
    "success of in_context": "The same for questions behind other facts of the concept, stated with their answers.",
    "success of translation": "The same for questions in another language.",
    "success of temperature": "Chance that one of so many answers, drawn and not taken as the likeliest, is right.",
    "success of soft_prefix": "Share of right answers behind vectors that were learned from other facts.",
    "success of prefix_search": "Share of right answers behind tokens that were searched for on other facts.",
    "success of quantisation": "Share that shows the concept when the erased weights are rounded to few bits.",
    "success of pruning": "The same when their smallest entries are set to zero.",
    "success of merging": "The same when a share of the way back to the original weights is gone.",
    "success of unablation": "The same when the strongest directions of the edit are taken back.",
}
"""Pattern that a metric begins with, to what it is."""

CONTROL = (
    "control is the same measurement where the answer is known; its name stands with it. Where before is a rate of an "
    "attack, it is the rate of prompts that name the concept, before the erasure."
)


def meaning(metric: str) -> str:
    """What a metric is, or nothing where this table does not know it."""
    return next((said for start, said in METRIC_MEANINGS.items() if re.match(_pattern(start), metric)), "")


def meanings(metrics: Iterable[str]) -> dict[str, str]:
    """Every metric that is known to its meaning, each once, in order; numbers of features are left out."""
    return {m: meaning(m) for m in dict.fromkeys(metrics) if meaning(m)}


def _pattern(start: str) -> str:
    return re.escape(start).replace(r"\.\*", ".*")
