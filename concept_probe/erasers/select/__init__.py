"""Choosing an erasure by measurement: made in several ways, tried on answers of the select split, the best one is kept.

`choose` is the choice among erasures that are there; `features`, `vectors` and `strength` make the candidates. Every list
of prompts is judged alone and the worst one counts; test prompts are never read. A chooser is one function that takes a
`Selection`, says what it tried, and returns a `Choice`.
"""
