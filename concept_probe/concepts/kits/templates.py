"""Sentences with a place for the thing, per kind of kit and split: none in two splits, some more than are needed."""

from __future__ import annotations

from typing import Literal

from concept_probe.types import Split

KitKind = Literal["object", "style", "person", "place", "topic"]
Frames = dict[Split, tuple[str, ...]]

OBJECT_FRAMES: Frames = {
    "fit": (
        "a photo of {}", "a close-up photo of {}", "a drawing of {} on white paper", "{} in front of a brick wall",
        "{} in the snow", "a bright picture of {}", "{} seen from above", "an old postcard with {} on it",
        "{} under a cloudy sky", "a blurry photo of {}", "a child looking at {}", "{} on a wooden floor",
        "a print of {}", "{} behind a fence", "{} in soft light",
    ),
    "select": (
        "a picture of {}", "a sketch of {}", "{} in a garden", "{} at night", "a low-resolution photo of {}",
        "{} in a white room", "a watercolour of {}", "a photo of {} taken in winter", "{} next to a window",
        "a poster that shows {}", "{} in bright sunlight", "a small figure of {}",
        "a snapshot of {}", "{} on a hill", "{} in dim light",
    ),
    "test": (
        "an image of {}", "a painting of {}", "{} on a grey background", "a black and white photo of {}", "{} in the rain",
        "a detailed illustration of {}", "{} at sunset", "a photo of {} from the side", "{} in an empty street",
        "a cropped photo of {}", "a magazine cover with {}", "somebody standing beside {}",
        "a scan of {}", "{} on a blue background", "{} seen through mist",
        "{} in the distance", "an engraving of {}", "{} in warm light", "a framed picture of {}", "a photo of {} on a screen",
        "a flyer with {}", "a photo of {} from behind", "an oil study of {}", "{} at dawn", "a wide photo of {}",
    ),
}  # fmt: skip
STYLE_FRAMES: Frames = {
    "fit": (
        "a harbour {}", "a bowl of fruit {}", "a woman at a window {}", "a bridge over a river {}", "a field of wheat {}",
        "a horse {}", "a street in the rain {}", "a mountain village {}", "a vase of flowers {}", "a man with a hat {}",
        "a boat on a lake {}", "a garden in spring {}",
        "a clown {}", "a red umbrella {}",
    ),
    "select": (
        "a castle on a hill {}", "a cat on a chair {}", "a train station {}", "a forest path {}", "an old man reading {}",
        "a crowded market {}", "a table with a jug {}", "a beach in summer {}", "a windmill {}", "two children playing {}",
        "a city at night {}", "an apple tree {}",
        "a sleeping child {}", "a blue door {}",
    ),
    "test": (
        "a lighthouse by the sea {}", "a dog in the grass {}", "a girl with a flower {}", "a church square {}",
        "a winter landscape {}", "a cafe terrace {}", "a ship in a storm {}", "a farm house {}", "a couple dancing {}",
        "a waterfall {}", "a kitchen table {}", "a bird on a branch {}",
        "an empty chair {}", "a bunch of grapes {}",
        "a tram in the city {}", "a stone bridge in fog {}", "a shepherd with sheep {}", "a library room {}",
        "a fish on a plate {}", "a rowing boat {}", "a violin in its case {}", "a snowy roof {}", "a walled courtyard {}",
        "a desert road {}", "a crescent moon {}",
    ),
}  # fmt: skip
PERSON_FRAMES: Frames = {
    "fit": (
        "a photo of {}", "{} reading a newspaper", "{} on a stage", "a pencil drawing of {}", "{} walking in a park",
        "{} sitting at a desk", "a stamp with the face of {}", "{} with an umbrella", "{} in a train",
        "a statue of {}", "{} waving at a crowd", "a photo of {} as a child",
        "{} on a bench", "a snapshot of {}",
    ),
    "select": (
        "a portrait of {}", "{} drinking coffee", "{} in a library", "a cartoon of {}", "{} beside a car",
        "{} giving a speech", "a coin with the head of {}", "{} in a winter coat", "{} at a dinner",
        "a wax figure of {}", "{} shaking hands", "an old photo of {}",
        "{} at a fair", "a sketch of {}",
    ),
    "test": (
        "a picture of {}", "{} writing a letter", "{} in a garden", "a painting of {}", "{} on a bicycle",
        "{} talking to a friend", "a mural of {}", "{} wearing sunglasses", "{} at an airport",
        "a small bust of {}", "{} looking out of a window", "a close-up of {}",
        "{} on a staircase", "an image of {}",
        "{} in a kitchen", "{} holding a book", "{} beside a fountain", "a poster with {}", "{} laughing",
        "{} at a press conference", "a figurine of {}", "{} in front of a mirror", "a charcoal portrait of {}",
        "{} at a bus stop", "{} under a street lamp",
    ),
}  # fmt: skip
PLACE_FRAMES: Frames = {
    "fit": (
        "a photo of {}", "{} at sunrise", "a postcard of {}", "{} seen from the air", "tourists at {}", "{} in winter",
        "a sketch of {}", "{} on a rainy day", "an old photo of {}", "a view of {} from far away", "a poster for {}",
        "birds over {}",
        "{} on a map", "a film set in {}",
    ),
    "select": (
        "a picture of {}", "{} at noon", "a stamp that shows {}", "{} through a window", "a family visiting {}",
        "{} in spring", "a watercolour of {}", "{} in thick fog", "a black and white photo of {}",
        "a wide view of {}", "a calendar page with {}", "clouds above {}",
        "a snapshot of {}", "a walk through {}",
    ),
    "test": (
        "an image of {}", "{} at night", "a magazine cover with {}", "{} seen from a boat", "a crowd at {}",
        "{} in autumn", "a painting of {}", "{} under a blue sky", "a faded photo of {}", "a close view of {}",
        "a guide book about {}", "fireworks over {}",
        "a print of {}", "a holiday in {}",
        "{} in heavy rain", "a street artist at {}", "{} seen from a train", "a paper model of {}", "an engraving of {}",
        "{} at dusk", "a school trip to {}", "{} behind trees", "a souvenir from {}", "a parade at {}", "an evening in {}",
    ),
}  # fmt: skip
FRAMES: dict[KitKind, Frames] = {
    "object": OBJECT_FRAMES,
    "style": STYLE_FRAMES,
    "person": PERSON_FRAMES,
    "place": PLACE_FRAMES,
}
"""Of the kinds that pictures are made of; a topic's questions are in `topics.py`."""
LEAST = 12
"""Prompts of each kind and split that a kit has, at least."""
MOST_SENTENCES: dict[Split, int] = {"fit": LEAST, "select": LEAST, "test": 24}
"""Prompts in sentences of one thing: as many test prompts as an audit in rounds asks at most."""
