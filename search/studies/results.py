"""Results of a study: the finalists, and the verdict on the winner."""

from dataclasses import dataclass
from statistics import mean

from optuna.trial import FrozenTrial

from pipeline.settings import TrainSettings


@dataclass(frozen=True)
class Finalist:
    """A trial among the best, and the validation accuracy of its settings on fresh seeds.

    A seed on which they could not be trained counts 0: a winner is trained once more.
    """

    trial: FrozenTrial
    settings: TrainSettings
    confirmed: list[float]

    @property
    def mean(self) -> float:
        return mean(self.confirmed)


@dataclass(frozen=True)
class Verdict:
    """The alias that a model got, and why, in a sentence."""

    version: str
    alias: str
    reason: str
