"""Errors that a command reports in one line, and the decision to prune a training."""


class InputError(Exception):
    """What a user gave can't be used. Its text is one line: what, where, and the remedy."""


class Pruned(Exception):  # noqa: N818  (a decision, not an error)
    """A search ends this training early: it can no longer become one of the best. One line."""


class TrainingError(Exception):
    """A training can't go on: its numbers, or those of the machine, are broken. One line."""
