"""Results of a study: the finalists, and the verdict on the winner."""

from dataclasses import dataclass
from statistics import mean

from optuna.trial import FrozenTrial

from pipeline.settings import TrainSettings


@dataclass(frozen=True)
class Finalist:
    """A trial among the best, and the validation accuracies of its settings on new seeds.

    A seed whose training failed counts 0, since the winner is trained again.
    """

    trial: FrozenTrial
    settings: TrainSettings
    confirmed: list[float]

    @property
    def mean(self) -> float:
        return mean(self.confirmed)


@dataclass(frozen=True)
class Verdict:
    """Version and alias of a registered model, and the reason for the alias, a sentence."""

    version: str
    alias: str
    reason: str
