"""The signal that ends a forward pass once nothing more is wanted from it."""

from __future__ import annotations


class Stopped(BaseException):
    """Raised from a hook and caught by the `stop_after` that raised it.

    Not an Exception, so that no `except Exception` of a model library swallows it.
    """
