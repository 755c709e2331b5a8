"""Every object and style of the embedded models as a `Concept`, with prompts kept apart by split.

Sentences of the splits share no template. Synonyms and descriptions are split too (the first serves
`fit`, the last `test`), and so are the unrelated objects: what an eraser is told says nothing about
the words on which it is tested. No neighbour or unrelated object is one of the removed objects, so
the never-taught twin can draw all of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from concept_probe.registry import UnknownName
from concept_probe.testbed.icons import icons
from concept_probe.testbed.vocabulary import (
    MORE,
    NOT_TAUGHT,
    PLAIN,
    REMOVED_OBJECTS,
    REMOVED_STYLE,
    STYLE_NAMES,
    STYLE_ONLY,
    STYLES,
    TEMPLATES,
    Object,
    objects,
)
from concept_probe.types import SPLITS, Concept, Prompt, Split, Splits

Templates = Mapping[str, Sequence[str]]
"""By split, sentences with places for an object and a style."""
_UNRELATED = {"fit": 40, "select": 8, "test": 12}


def emoji_names() -> tuple[str, ...]:
    """Every concept of the embedded models: the objects, then the styles."""
    return (*(o.name for o in objects()), *STYLES)


def emoji_concept(name: str, model: str = "emoji", *, more: bool = False) -> Concept:
    """The concept called `name`, in sentences of the styles that `model` was taught.

    With `more`, test prompts come in twice as many sentences, the usual ones first.

    An object may be one that the model was never taught: that is what absence is measured on. But asked
    for in a style that it does not know, it draws other objects badly too, and that is no damage.

    >>> concept("camel").target.test[0].text
    'a drawing of camel in noto style'
    """
    for entry in objects():
        if entry.name == name:
            return _object_concept(entry, tuple(s for s in STYLES if s != NOT_TAUGHT[model][1]), _templates(more))
    if name in STYLES:
        return _style_concept(name, _templates(more))
    raise UnknownName("concept", name, emoji_names(), "the list: concept_probe.testbed.concepts.emoji_names()")


def emoji_prompts(split: Split = "fit", model: str = "emoji") -> tuple[Prompt, ...]:
    """Sentences on what `model` was taught, objects by all their names, in all styles in turn.

    This is what a sparse autoencoder is trained on.
    """
    out, (unknown, without) = [], NOT_TAUGHT[model]
    for i, entry in enumerate(objects()):
        for j, phrase in enumerate(entry.phrases()):
            for k, template in enumerate((*TEMPLATES[split], *PLAIN[split])):
                style = STYLES[(i + j + k) % len(STYLES)]
                if entry.name in unknown or (style == without and "{s}" in template):
                    continue
                style = STYLE_NAMES[style][(i + k) % 2]
                out.append(Prompt(template.format(o=phrase, s=style), phrase, entry.name))
    return tuple(out)


def _templates(more: bool) -> Templates:
    return {split: TEMPLATES[split] + (MORE[split] if more else ()) for split in SPLITS}


def _sentences(
    templates: Sequence[str], phrases: Iterable[tuple[str, str]], styles: Sequence[str], *, every_style: bool
) -> tuple[Prompt, ...]:
    """(phrase, label) pairs in every template; in all `styles`, or in one style each, in turn.

    Where it is one style's turn that is not among `styles`, there is no sentence.
    """
    out = []
    for i, (phrase, label) in enumerate(phrases):
        for k, template in enumerate(templates):
            turn = STYLES if every_style else (STYLES[(i + k) % len(STYLES)],)
            chosen = [s for s in turn if s in styles]
            out += [Prompt(template.format(o=phrase, s=STYLE_NAMES[s][0]), phrase, label) for s in chosen]
    return tuple(out)


def _shuffled(items: list[Object], key: str) -> list[Object]:
    return sorted(items, key=lambda o: zlib.crc32(f"{key}/{o.name}".encode()))


def _object_concept(entry: Object, styles: Sequence[str], templates: Templates) -> Concept:
    kept = [o for o in objects() if o.name not in (*REMOVED_OBJECTS, entry.name)]
    near = _shuffled([o for o in kept if o.group == entry.group], entry.name)[:8]
    far = _shuffled([o for o in kept if o.group != entry.group], entry.name)
    parts, start = {}, 0
    for split in SPLITS:
        parts[split] = far[start : start + _UNRELATED[split]]
        start += _UNRELATED[split]
    which = {"fit": 0, "select": 1, "test": 2}

    def splits(make) -> Splits:
        return Splits(*(make(split) for split in SPLITS))

    row = [o.name for o in objects()].index(entry.name)
    return Concept(
        name=entry.name,
        target=splits(lambda s: _sentences(templates[s], [(entry.name, entry.name)], styles, every_style=True)),
        paraphrases=splits(
            lambda s: _sentences(
                templates[s], [(entry.synonyms[min(which[s], 1)], entry.name)], styles, every_style=True
            )
        ),
        implicit=splits(
            lambda s: _sentences(templates[s], [(entry.descriptions[which[s]], entry.name)], styles, every_style=True)
        ),
        neighbours=splits(
            lambda s: _sentences(templates[s], [(o.name, o.name) for o in near], styles, every_style=False)
        ),
        anchor=splits(lambda s: tuple(Prompt(STYLE_ONLY[0].format(s=STYLE_NAMES[style][0])) for style in styles)),
        unrelated=splits(
            lambda s: _sentences(templates[s], [(o.name, o.name) for o in parts[s]], styles, every_style=False)
        ),
        examples=(icons()[:, row] + 1) / 2,
    )


def _style_concept(style: str, templates: Templates) -> Concept:
    kept = _shuffled([o for o in objects() if o.name not in REMOVED_OBJECTS], style)
    count = len(kept) // 3
    shown = {split: kept[i * count : (i + 1) * count] for i, split in enumerate(SPLITS)}
    others = [s for s in STYLES if s not in (style, REMOVED_STYLE)]

    def sentences(split: Split, styles: list[str], which: int, start: int, stop: int) -> tuple[Prompt, ...]:
        return tuple(
            Prompt(template.format(o=o.name, s=STYLE_NAMES[s][which]), STYLE_NAMES[s][which], s)
            for i, o in enumerate(shown[split][start:stop])
            for k, template in enumerate(templates[split])
            for s in (styles[(i + k) % len(styles)],)
        )

    def splits(styles: list[str], which: int, start: int, stop: int) -> Splits:
        return Splits(*(sentences(split, styles, which, start, stop) for split in SPLITS))

    return Concept(
        name=style,
        target=splits([style], 0, 0, 4),
        paraphrases=splits([style], 1, 0, 4),
        neighbours=splits(others, 0, 4, 12),
        # Another style, since a prompt that names none may well be drawn in this one (benchmarks/emoji_style.py).
        anchor=Splits(*(tuple(replace(p, label=None) for p in sentences(s, others[:1], 0, 0, 4)) for s in SPLITS)),
        unrelated=splits(others, 0, 12, 24),
        examples=(icons()[STYLES.index(style)][[[o.name for o in objects()].index(k.name) for k in kept[:16]]] + 1) / 2,
    )
