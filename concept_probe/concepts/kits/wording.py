"""English around a name: its article, its plural, and a description that doesn't say it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_PAIRS = (
    "binoculars", "glasses", "goggles", "headphones", "jeans", "leggings", "pajamas", "pants", "pliers", "pyjamas",
    "scissors", "shorts", "sunglasses", "tights", "tongs", "trousers", "tweezers",
)  # fmt: skip
_MASS = (
    "bacon", "beef", "beer", "bread", "broccoli", "butter", "cake", "candy", "cheese", "chocolate", "cloth",
    "clothing", "coal", "coffee", "corn", "equipment", "flame", "fire", "fog", "food", "fruit", "fur", "furniture",
    "garlic", "glass", "gold", "grass", "honey", "hair", "ice", "jam", "jewelry", "lava", "leather", "lightning",
    "meat", "milk", "money", "mud", "paper", "pasta", "pork", "rain", "rice", "salt", "sand", "silver", "snow",
    "soup", "spaghetti", "spinach", "steam", "sugar", "tea", "tofu", "toast", "water", "wax", "wine", "wheat",
    "wood", "wool", "yogurt",
)  # fmt: skip
"""Words that take no article, though they are no substances by their class."""
_PLURALS = {
    "child": "children", "fish": "fish", "foot": "feet", "goose": "geese", "knife": "knives", "leaf": "leaves",
    "man": "men", "mouse": "mice", "ox": "oxen", "person": "people", "sheep": "sheep", "deer": "deer", "shelf":
    "shelves", "tooth": "teeth", "wolf": "wolves", "woman": "women", "calf": "calves", "loaf": "loaves", "half":
    "halves", "bison": "bison", "salmon": "salmon", "trout": "trout", "aircraft": "aircraft",
}  # fmt: skip
_FUNCTION = frozenset({
    "a", "an", "and", "any", "as", "at", "but", "by", "for", "from", "has", "have", "having", "in", "into", "is",
    "it", "its", "like", "of", "on", "one", "or", "other", "out", "over", "some", "than", "that", "the", "to",
    "under", "used", "usually", "various", "very", "was", "were", "where", "which", "who", "whose", "with",
    "without",
})  # fmt: skip
_AN_SOUND = re.compile(r"(?i)(?!u(ni|se|su|ti|k|r[aeio])|eu|ewe|one\b|once|ouija)(hour|honest|honou?r|heir|[aeiou])")
LONGEST_DESCRIPTION = 20
"""Words of a description: a text encoder reads some fifty beside a sentence."""


@dataclass(frozen=True)
class Wording:
    """What stands in a sentence for a thing."""

    words: str | None
    """The words that name it; None for a description."""
    phrase: str
    """The same as a sentence needs them, with an article or what else belongs there."""
    label: str | None
    """What a recogniser should say."""


def with_article(words: str) -> str:
    """Words with a or an, by how they sound.

    >>> [with_article(w) for w in ("owl", "unicorn", "hourglass", "church")]
    ['an owl', 'a unicorn', 'an hourglass', 'a church']
    """
    return f"{'an' if _AN_SOUND.match(words) else 'a'} {words}"


def phrase_of(words: str, domain: str = "") -> str:
    """A thing's name as it stands in a sentence: with an article, a pair, or, for what isn't counted, bare."""
    last = words.lower().split(" of ")[0].split()[-1]
    if last in _PAIRS:
        return f"a pair of {words}"
    return words if last in _MASS or domain == "substance" or _is_plural(last) else with_article(words)


def _is_plural(word: str) -> bool:
    return word.endswith("s") and not word.endswith(("ss", "us", "is", "as", "os", "lens")) and len(word) > 4


def plural(words: str, domain: str = "") -> str | None:
    """Its plural; None for what has none of its own, and for a name with a capital, which may be of one thing alone.

    >>> plural("golden retriever"), plural("church"), plural("fox"), plural("water")
    ('golden retrievers', 'churches', 'foxes', None)
    """
    *before, last = words.split()
    if (
        last in (*_PAIRS, *_MASS)
        or domain in ("substance", "process")
        or " of " in words
        or last[:1].isupper()
        or _is_plural(last)
    ):
        return None
    if last in _PLURALS:
        many = _PLURALS[last]
    elif re.search(r"[^aeiou]y$", last):
        many = last[:-1] + "ies"
    else:
        many = last + ("es" if re.search(r"(s|x|z|ch|sh)$", last) else "s")
    return " ".join([*before, many]) if many != last else None


def content_words(text: str) -> set[str]:
    """The words of a text that carry meaning, in lower case and without a plural's ending."""
    return {_stem(w) for w in re.findall(r"[^\W\d_]+", text.lower()) if w not in _FUNCTION and len(w) > 1}


def _stem(word: str) -> str:
    word = re.sub(r"(?<=[a-z]{3})'?s$", "", word)
    return re.sub(r"(?<=[a-z]{3})(e|es)$", "", word)


def said_of(text: str, names: Iterable[str]) -> list[str]:
    """The words of a text that are words of `names`, or begin as one does for six letters and more.

    >>> said_of("an architectural product or work", ["architecture"])
    ['architectural']
    """
    hidden = set().union(*map(content_words, names))
    beginnings = tuple({w[:6] for w in hidden if len(w) >= 6})
    return sorted(w for w in content_words(text) if w in hidden or (len(w) >= 6 and w.startswith(beginnings)))


def first_clause(gloss: str) -> str:
    """A gloss up to its first stop, without what stands in brackets: a field of knowledge, mostly."""
    return re.split(r";|:|--", re.sub(r"\([^()]*\)", " ", gloss))[0]


def description_of(gloss: str, names: Sequence[str], generic: str, other: str = "something") -> str | None:
    """A gloss as a noun phrase in which no word of `names` stands; None where nothing is left to go by.

    A word of a name that another word follows is taken out; else `generic` (animal, object ...) takes the place of a name's
    last word, and `other` that of its other words.

    >>> description_of("an English breed having a long silky golden coat", ("golden retriever",), "animal")
    'an English breed having a long silky coat'
    """
    text = first_clause(gloss)
    heads = {_stem(name.lower().split()[-1]) for name in names}
    tokens, out = re.findall(r"[^\W_][\w'’-]*|[,.]|&", text), []
    for i, token in enumerate(tokens):
        if not said_of(token, names):
            out.append(token)
            continue
        after = tokens[i + 1].lower() if i + 1 < len(tokens) else ""
        is_head = _stem(token.lower()) in heads
        said_next = not after or after in _FUNCTION or not after[0].isalnum()
        if is_head and (said_next or after.endswith(("ed", "ing"))):
            out.append(plural(generic) or generic if _is_plural(token) else generic)
        elif said_next:
            while out and out[-1].lower() in ("a", "an", "the"):
                out.pop()
            out.append(other)
    text = re.sub(r"\s+([,.])", r"\1", " ".join(_shortened(out))).strip(" ,.")
    if len(content_words(text) - {_stem(generic), _stem(other)}) < 2:
        return None
    return _as_noun_phrase(text)


def _shortened(tokens: list[str]) -> list[str]:
    """At most so many, cut where a clause begins if it can be."""
    if len(tokens) <= LONGEST_DESCRIPTION:
        return tokens
    kept = tokens[:LONGEST_DESCRIPTION]
    ends = [i for i, t in enumerate(kept) if i > 4 and (t == "," or t in ("and", "or", "which", "that", "with", "in"))]
    return kept[: ends[-1]] if ends else kept


def _as_noun_phrase(text: str) -> str:
    text = re.sub(r"(?i)^any (of )?(the )?(several|various|numerous|many|a number of) ", "one of various ", text)
    text = re.sub(r"(?i)^any of (the )?", "one of the ", text)
    text = re.sub(r"(?i)^any ", "a ", text)
    text = re.sub(r"(?i)\b(a|an) (?=([^\W\d_]))([\w'’-]+)", lambda m: with_article(m[3]), text)
    first, *_ = words = text.lower().split()
    if first in ("a", "an", "the", "one", "some", "two", "several", "his", "her"):
        return text
    # What it is about is the last word before what is said of it.
    end = next((i for i, w in enumerate(words) if i and _ends_phrase(words[i - 1], w)), len(words))
    head = words[end - 1].strip(",")
    return text if _is_plural(head) or head in _MASS else with_article(text)


def _ends_phrase(before: str, word: str) -> bool:
    """Whether what is said of a thing begins with `word`."""
    said = word in _FUNCTION and word not in ("and", "or")
    return said or before.endswith(",") or (_is_plural(before) and word.endswith(("ed", "ing")))
