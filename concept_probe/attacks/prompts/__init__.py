"""Attacks that hold a keyboard: other words, descriptions, roles, facts in context, another language, many draws.

They ask through `best_of_n`, so each promises a curve over queries, as pass@k, and a control of prompts that can be
answered without knowing the concept. Weights, embeddings and the sampler stay as they are. A new one is one file here,
whose `run` ends with `best_of_n(run, PromptPlan(prompts, others, control_name))`, and one line in `attacks.ATTACKS`.
"""
