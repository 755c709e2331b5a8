"""An audit in rounds: first a little of everything, then only of what is in doubt, until what decides is decided.

`AuditRounds` says how many looks there are, which is fixed beforehand, and what an audit may cost. `ask_in_rounds` is the rule,
which knows no models: it looks at what was gathered, at the error that belongs to that look (`evaluation.looks`), and says
what is asked next. `RoundsOfAudit` is what it asks: every measure on its own share of the questions, so that what a measure
finds in a round is what an audit with as few prompts finds, and nothing is asked twice.
"""
