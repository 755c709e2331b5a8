"""`concept-probe`, which is `python -m concept_probe`: signals are answered before anything heavy is imported."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType

INTERRUPTED = (
    "interrupted; no file is half-written. capture, train and run --retrain go on from their last checkpoint when the "
    "command is repeated, bench and calibrate from their last row; other verbs begin again"
)
TERMINATED = INTERRUPTED.replace("interrupted", "terminated", 1)


def main() -> None:
    """The command line. An interruption says one line and exits with 130, at any moment; SIGTERM with 143."""
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        from concept_probe.cli import app

        app()
    except KeyboardInterrupt:
        _leave(130)
    except SystemExit as left:
        if _SAID:  # whoever caught the interruption on its way
            _leave(143 if TERMINATED in _SAID else 130)
        raise left


_SAID: list[str] = []


def _interrupt(number: int, frame: FrameType | None) -> None:
    if _SAID:  # asked a second time
        os._exit(130)
    _say(INTERRUPTED)
    raise KeyboardInterrupt


def _terminate(number: int, frame: FrameType | None) -> None:
    if not _SAID:
        _say(TERMINATED)
    raise SystemExit(143)


def _say(line: str) -> None:
    _SAID.append(line)
    os.write(2, f"\n{line}\n".encode())


def _leave(code: int) -> None:
    """End without a further word: threads and libraries that are still busy would answer with tracebacks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
