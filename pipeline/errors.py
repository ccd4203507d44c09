"""Exceptions: errors that a command reports in one line, and the pruning of a training."""

import sys

from pipeline import secrets


def one_line(text: str) -> str:
    """`text` in one line that is safe to print: secrets hidden, control characters escaped."""
    shown = (c if c.isprintable() else ascii(c)[1:-1] for c in secrets.hide(text))
    return "".join(shown)


def reason(error: BaseException, length: int = 200) -> str:
    """The text of an error of a library in one line, cut to `length`; its type if it has none."""
    said = str(error).partition("\n[SQL:")[0].partition("\n(Background on this error")[0]
    text = one_line(" ".join(said.split())) or type(error).__name__
    return text if len(text) <= length else f"{text[: length - 1]}…"


def note(text: str) -> None:
    """Print a line about something that is missing but not needed, on standard error."""
    print(f"note: {one_line(text)}", file=sys.stderr)


def print_any_character() -> None:
    """Let characters that the terminal's encoding lacks (ASCII) be printed as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


class _OneLine(Exception):  # noqa: N818
    """An exception whose text is one line that can be printed."""

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text))


class InputError(_OneLine):
    """Unusable input of a user. Its text is one line: the input, the problem and the remedy."""


class Pruned(Exception):  # noqa: N818  (not an error)
    """The pruner of a search ends this training early. Its text is one line."""


class TrainingError(_OneLine):
    """A training failed: a loss that is not finite, or a device that computes wrong numbers."""
