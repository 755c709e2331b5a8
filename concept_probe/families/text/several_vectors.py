"""Words of several vectors: a textual inversion (arXiv 2208.01618) may have learned more than one embedding.

Its tokenizer then has tokens `<word>`, `<word>_1`, `<word>_2`, and a pipeline puts all of them where a prompt says
`<word>`. So does whatever tokenises here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import count, takewhile
from typing import Any

Span = tuple[int, int]


def words_of_several_vectors(tokenizer: Any) -> dict[str, str]:
    """Each added token that has numbered ones beside it, with all of them, a space between two."""
    added = getattr(tokenizer, "added_tokens_encoder", {})
    return {
        word: " ".join((word, *takewhile(added.__contains__, (f"{word}_{i}" for i in count(1)))))
        for word in added
        if f"{word}_1" in added
    }


def spelled_out(tokenizer: Any, text: str, spans: Sequence[Span] = ()) -> tuple[str, list[Span]]:
    """The text with every token of its words of several vectors, and where character ranges of it are then.

    A range that touches such a word holds all of its tokens.
    """
    words = words_of_several_vectors(tokenizer)
    said = {word: words[word] for word in set(tokenizer.tokenize(text)).intersection(words)} if words else {}
    if not said:
        return text, list(spans)
    return _replaced(text, said, spans)


def _replaced(text: str, said: Mapping[str, str], spans: Sequence[Span]) -> tuple[str, list[Span]]:
    found = list(re.finditer("|".join(re.escape(word) for word in sorted(said, key=len, reverse=True)), text))
    longer = [len(said[match.group()]) - len(match.group()) for match in found]
    out = []
    for start, stop in spans:
        touched = [m for m in found if m.start() < stop and m.end() > start]
        start, stop = min([start, *(m.start() for m in touched)]), max([stop, *(m.end() for m in touched)])
        before, within = (
            sum(more for more, m in zip(longer, found, strict=True) if m.end() <= end) for end in (start, stop)
        )
        out.append((start + before, stop + within))
    pieces, last = [], 0
    for match in found:
        pieces += [text[last : match.start()], said[match.group()]]
        last = match.end()
    return "".join([*pieces, text[last:]]), out
