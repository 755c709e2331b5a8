"""Add up: rows of a sweep become tables. Nothing is measured here; every table is a function of rows alone.

`leaderboard` compares erasers on the cells that all of them have (`comparable`), with intervals over blocks (`scores`,
`rates`) and secondary measures. `per_kind` and `per_attack` are plain tables of one sweep; `unlearning` counts facts over
many concepts of a language model and judges them as an audit does.
"""
