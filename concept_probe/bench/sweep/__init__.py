"""Measure: a grid of methods, concepts, attacks and seeds becomes rows, one per cell, on one machine or many.

`grid` says what is asked and names each cell by what decides its number, so that rows are never mixed or measured
twice. `sweep` walks it; `cell` and `attack_cell` measure; `fits` keeps what is expensive to make; `store` holds the rows
on disk and the claims by which processes share the work. A new way to prepare a method is one function in `methods`
and one line in `PREPARATIONS`; a new value of a cell is one key of what `cell.compare_answers` returns.
"""
