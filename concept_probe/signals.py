"""What the command line answers to Ctrl-C and SIGTERM: one line, at any moment, imports included."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType

INTERRUPTED = (
    "interrupted; no file is half-written. capture, train and run --retrain go on from their last checkpoint when the "
    "command is repeated, bench and calibrate from their last row; audit and run with --rounds end "
    "with the rounds that were whole; other verbs begin again"
)
TERMINATED = INTERRUPTED.replace("interrupted", "terminated", 1)
_SAID: list[str] = []


def answer_signals() -> None:
    """From now on an interruption says one line and raises KeyboardInterrupt, SIGTERM one and raises SystemExit(143).
    While a module is imported, and when somebody interrupts twice, the process ends at once."""
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _terminate)


def was_told() -> bool:
    """Whether the line stands there already."""
    return bool(_SAID)


def leave() -> None:
    """End with the code of what was asked: threads and libraries that are still busy would answer with tracebacks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(143 if TERMINATED in _SAID else 130)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if _SAID:
        os._exit(130)
    _say(INTERRUPTED)
    if _importing(frame):
        leave()
    raise KeyboardInterrupt


def _terminate(number: int, frame: FrameType | None) -> None:
    if not _SAID:
        _say(TERMINATED)
    if _importing(frame):
        leave()
    raise SystemExit(143)


def _importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported: compiled ones abort the process when an exception meets them half-made."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _say(line: str) -> None:
    _SAID.append(line)
    with contextlib.suppress(OSError):
        os.write(2, f"\n{line}\n".encode())
