"""A CLIP tokenizer small enough that every object's name is spelled in several shared pieces."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from concept_probe.storage import write_text
from concept_probe.testbed.vocabulary import PLAIN, STYLE_NAMES, STYLE_ONLY, TEMPLATES, objects

TEXT_LENGTH = 40
PIECES = 400
_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"


def padded(tokenizer: Any, texts: Sequence[str]) -> Any:
    """Texts as the embedded models read them: ids and ranges of letters (n, TEXT_LENGTH), filled up or cut."""
    return tokenizer(
        list(texts), padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt",
        return_offsets_mapping=True,
    )  # fmt: skip


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """Learn byte-pair merges from template and description words (never from names) and save to `folder`.

    Names and synonyms are left out of the merges, so that no name becomes one token and the
    identity of an object has to be computed from its pieces.
    """
    sentences = [t for group in (*TEMPLATES.values(), *PLAIN.values(), STYLE_ONLY) for t in group]
    sentences = [t.format(o=" ", s=" ") for t in sentences for _ in range(4)]
    sentences += [n for names in STYLE_NAMES.values() for n in names for _ in range(4)]
    sentences += [d for entry in objects() for d in entry.descriptions]
    model = Tokenizer(models.BPE(unk_token=_EOS, end_of_word_suffix="</w>", fuse_unk=False))
    model.normalizer = normalizers.Lowercase()
    model.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"[a-z]+|[0-9]|[^\sa-z0-9]+"), "removed", invert=True)]
    )
    model.decoder = decoders.BPEDecoder(suffix="</w>")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789,.:;!?'-"
    # The alphabet comes first so that any text can be spelled, alone or at the end of a word.
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES,
        end_of_word_suffix="</w>",
        show_progress=False,
        initial_alphabet=list(letters),
        special_tokens=[],
    )
    model.train_from_iterator(sentences + list(letters), trainer)
    state = json.loads(model.to_str())["model"]
    vocabulary = dict(state["vocab"])
    for letter in letters:
        for piece in (letter, letter + "</w>"):
            vocabulary.setdefault(piece, len(vocabulary))
    vocabulary = {piece: i for i, piece in enumerate(vocabulary)} | {_BOS: len(vocabulary), _EOS: len(vocabulary) + 1}
    merges = [" ".join(m) if isinstance(m, list) else m for m in state["merges"]]
    write_text(folder / "vocab.json", json.dumps(vocabulary))
    write_text(folder / "merges.txt", "#version: 0.2\n" + "\n".join(merges) + "\n")
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"),
        str(folder / "merges.txt"),
        model_max_length=TEXT_LENGTH,
        bos_token=_BOS,
        eos_token=_EOS,
        unk_token=_EOS,
        pad_token=_EOS,
    )
    tokenizer.save_pretrained(folder)
    return tokenizer
