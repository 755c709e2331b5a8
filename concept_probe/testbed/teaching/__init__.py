"""What `testbed.teach` is made of: the plan, what is learned, what is kept on the model at hand, and what came of it."""

from concept_probe.testbed.teaching.outcome import Taught, TaughtBadly
from concept_probe.testbed.teaching.plan import FIRST_LESSONS, LESSONS, TeachingPlan

__all__ = ["FIRST_LESSONS", "LESSONS", "Taught", "TaughtBadly", "TeachingPlan"]
