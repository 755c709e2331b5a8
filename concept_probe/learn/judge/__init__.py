"""How good a dictionary is, on rows it never saw: every number beside a control, with an interval over prompts.

`evaluate` asks what is explained, how many features fire and what the subject's output loses; `density`, `neighbours`
and `stability` look at the features. `heldout` refuses prompts that training saw. A new measure is a file that returns
`Score`s, and a line of `card.MEANING`.
"""
