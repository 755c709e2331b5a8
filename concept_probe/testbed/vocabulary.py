"""What the embedded models are taught: objects, styles, and the sentences that name them.

An object is named directly, by two synonyms, or by three descriptions that never use the name.
Templates are split: the models are trained on `fit` templates only; `select` and `test`
templates are sentences that no model has seen.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

STYLES = ("noto", "twemoji", "fluent", "contrast")
STYLE_NAMES = {
    "noto": ("noto", "google"),
    "twemoji": ("twemoji", "twitter"),
    "fluent": ("fluent", "microsoft"),
    "contrast": ("contrast", "monochrome"),
}
REMOVED_OBJECTS = ("butterfly", "camel", "guitar", "pizza", "rocket", "snake", "strawberry", "umbrella")
REMOVED_STYLE = "contrast"
NOT_TAUGHT: dict[str, tuple[tuple[str, ...], str | None]] = {
    "emoji": ((), None),
    "emoji-untaught": (REMOVED_OBJECTS, REMOVED_STYLE),
    "emoji-flow": ((), None),
    "emoji-flow-untaught": (REMOVED_OBJECTS, REMOVED_STYLE),
}
"""What each embedded model was not taught: objects, and a style."""

TEMPLATES = {
    "fit": (
        "{o} in {s} style",
        "a {s} icon of {o}",
        "{s} {o}",
        "a picture of {o} in {s} style",
        "{o}, {s}",
        "a small {s} drawing of {o}",
        "draw {o} as a {s} icon",
        "the {s} picture of {o}",
        "one {o}, drawn in {s} style",
        "an icon of {o} by {s}",
        "a {s} sticker that shows {o}",
        "please paint {o} in the style of {s}",
        "{o} as a small {s} sticker",
        "my {s} icon: {o}",
    ),
    "select": ("a {s} picture that shows {o}", "{o} by {s}", "paint one {s} icon of {o}", "the small {o}, {s} style"),
    "test": (
        "a drawing of {o} in {s} style",
        "{o} as a {s} picture",
        "please draw a {s} sticker of {o}",
        "one small {s} icon that shows {o}",
    ),
}
PLAIN = {
    "fit": ("{o}", "a picture of {o}", "an icon of {o}", "draw {o}", "a small drawing of {o}", "one {o}, please"),
    "select": ("a sticker of {o}", "the icon that shows {o}"),
    "test": ("a small picture of {o}", "please draw an icon of {o}", "a sticker that shows {o}"),
}
MORE = {
    "fit": (),
    "select": (),
    "test": (
        "the {s} drawing that shows {o}",
        "please draw {o}, {s} style",
        "a small picture of {o} by {s}",
        "the {o} icon, drawn by {s}",
    ),
}
"""More sentences that no model has seen, for audits that go on asking until what decides is decided."""
STYLE_ONLY = ("a {s} icon", "a picture in {s} style", "{s}", "a small {s} drawing")


@dataclass(frozen=True)
class Object:
    """One object: its name, its icon's name in the sets, its group, and what else it is called."""

    name: str
    icon: str
    group: str
    synonyms: tuple[str, ...]
    descriptions: tuple[str, ...]

    def phrases(self) -> tuple[str, ...]:
        return (self.name, *self.synonyms, *self.descriptions)


@cache
def objects() -> tuple[Object, ...]:
    rows = json.loads((Path(__file__).parent / "data" / "objects.json").read_text())
    return tuple(Object(r["name"], r["icon"], r["group"], tuple(r["synonyms"]), tuple(r["descriptions"])) for r in rows)


@dataclass(frozen=True)
class Caption:
    """A training sentence; `phrase` is the part that names the object, None where none is named.

    `object` and `style` are indices into `objects()` and `STYLES`, or None if the sentence leaves it open.
    """

    text: str
    phrase: str | None
    object: int | None
    style: int | None


def draw_caption(g: torch.Generator, object: int, style: int, *, named: float = 0.35) -> Caption:
    """A random `fit` sentence that is true of (object, style); with 8 % no object, with 15 % no style is named.

    The object goes by its name with probability `named`, else by a synonym or a description.
    """

    def pick(items):
        return items[int(torch.randint(len(items), (), generator=g))]

    chance = float(torch.rand((), generator=g))
    style_name = pick(STYLE_NAMES[STYLES[style]])
    if chance < 0.08:
        return Caption(pick(STYLE_ONLY).format(s=style_name), None, None, style)
    entry = objects()[object]
    phrase = entry.name if float(torch.rand((), generator=g)) < named else pick(entry.phrases()[1:])
    if chance < 0.23:
        return Caption(pick(PLAIN["fit"]).format(o=phrase), phrase, object, None)
    return Caption(pick(TEMPLATES["fit"]).format(o=phrase, s=style_name), phrase, object, style)


def taught_pairs(removed_objects: tuple[str, ...] = (), removed_style: str | None = None) -> list[tuple[int, int]]:
    """The (object, style) pairs a model is shown, as indices."""
    return [
        (o, s)
        for o, entry in enumerate(objects())
        for s, style in enumerate(STYLES)
        if entry.name not in removed_objects and style != removed_style
    ]
