"""Causal language models: what they read, what they write, and how likely they find a text.

`causal_lm.CausalLMSubject` is the subject; it promises that neither the batch nor its padding changes an answer beyond
rounding, and that a draw comes from a query's seed alone. `tokens` spells prompts with their chat template, `generate`
reads and writes token by token, `layout` finds the blocks and their parts by the build of the modules, and `reading`
gets model and tokenizer from disk. A model that is built as others are needs no new file.
"""
