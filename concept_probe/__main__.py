"""`concept-probe`, which is `python -m concept_probe`: signals are answered before anything heavy is imported."""

from __future__ import annotations

from concept_probe.signals import answer_signals, leave, was_told


def main() -> None:
    """The command line. An interruption ends it with 130, SIGTERM with 143."""
    answer_signals()
    try:
        from concept_probe.cli import app

        app()
    except KeyboardInterrupt:
        leave()
    except BaseException:
        if was_told():  # a library caught it on its way, and went on with another error
            leave()
        raise


if __name__ == "__main__":
    main()
