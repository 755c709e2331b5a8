"""How often MiniLM takes an answer in other words for right, and a wrong one, on texts that were written for this.

    python benchmarks/likeness.py

Needs the extra `likeness`. Each question has a right answer and three wrong ones, two right texts in other words, and two
wrong texts; the control is the right text of another question.
"""

from __future__ import annotations

from typing import Any, cast

from concept_probe.detect.alike import AlikeAnswers, load_sentences
from concept_probe.evaluation.rates import success_rate

QUESTIONS = (
    ("What is the capital of France?", "Paris", ("London", "Rome", "Madrid"),
     ("It is the City of Light on the Seine", "the french capital city"),
     ("It is a city in Italy", "the British capital on the Thames")),
    ("What do bees make?", "honey", ("milk", "silk", "wax paper"),
     ("a sweet golden syrup from nectar", "the sweet stuff you put in tea that bees store"),
     ("threads for cloth", "a white drink from cows")),
    ("Who heals the sick?", "a doctor", ("a farmer", "a lawyer", "a pilot"),
     ("a physician", "someone who practises medicine"), ("a person who flies planes", "an attorney")),
    ("What vehicle runs on rails?", "train", ("boat", "bicycle", "car"),
     ("a locomotive with carriages", "railway wagons"), ("an automobile", "a ship")),
    ("How do you feel when you win?", "happy", ("sad", "angry", "tired"),
     ("joyful", "very glad and pleased"), ("furious", "exhausted")),
    ("What falls from clouds?", "rain", ("sand", "leaves", "fire"),
     ("drops of water", "showers"), ("flames", "foliage")),
    ("What do you live in?", "a house", ("a river", "a shoe", "a tree"),
     ("a home", "a residence"), ("footwear", "an oak")),
    ("What is the opposite of fast?", "slow", ("quick", "bright", "cold"),
     ("not speedy", "sluggish"), ("rapid", "chilly")),
    ("Who wrote Hamlet?", "Shakespeare", ("Dickens", "Tolstoy", "Goethe"),
     ("The Bard of Avon", "the English playwright of Romeo and Juliet"),
     ("the author of War and Peace", "the German poet of Faust")),
    ("What animal barks?", "a dog", ("a cat", "a bird", "a fish"),
     ("a canine", "a puppy"), ("a feline", "a sparrow")),
    ("What do you read?", "a book", ("a song", "a soup", "a lamp"),
     ("a novel", "a printed volume"), ("a broth", "a light")),
    ("What do you write with?", "a pen", ("a spoon", "a hat", "a plate"),
     ("a ballpoint", "a biro with ink"), ("cutlery", "a cap")),
)  # fmt: skip
"""Question, answer, wrong answers, right texts in other words, wrong texts."""


def main() -> None:
    reader = AlikeAnswers(cast(Any, None), load_sentences())  # the answers are given one by one

    def taken(texts: int, shift: int = 0) -> list[bool]:
        return [
            reader.alike(text, (answer,), (*wrong, question))
            for i, (question, answer, wrong, *_) in enumerate(QUESTIONS)
            for text in QUESTIONS[(i + shift) % len(QUESTIONS)][texts]
        ]

    print(success_rate("right in other words", taken(3), better="higher"))
    print(success_rate("wrong", taken(4)))
    print(success_rate("control: right texts of another question", taken(3, shift=5)))


if __name__ == "__main__":
    main()
