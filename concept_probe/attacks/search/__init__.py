"""Attacks that search for words, by gradients or by what texts are read as; what they find is a prompt that can be typed.

`vocabulary` holds the words to choose from, `slots` their places in a prompt, `objective` what is descended and its
gradient in the words, `steps` ways from words to words, `search` the attack that puts these together. Guards see every
prompt of a search as they see any other. Random words are where it starts and the control. A new one is one file here,
a `HardPrompt` that says its `slot`, its `goal` and its `stepper`, and one line in `attacks.ATTACKS`.
"""
