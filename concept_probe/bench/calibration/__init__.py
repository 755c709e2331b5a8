"""The audit audited: subjects whose truth is known, one audit each, and how often the verdict was right.

`ground_truth` makes the cases, `run` audits them and keeps a row each, `roc` turns rows into the calibration that
reports print.
"""
