"""Exceptions: errors that a command reports in one line, and the pruning of a training."""


class InputError(Exception):
    """Unusable input of a user. Its text is one line: the input, the problem and the remedy."""


class Pruned(Exception):  # noqa: N818  (not an error)
    """The pruner of a search ends this training early. Its text is one line."""


class TrainingError(Exception):
    """A training failed: a loss that is not finite, or a device that computes wrong numbers."""
