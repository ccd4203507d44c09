"""Results of a study: the finalists, and the verdict on the winner."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from optuna.trial import FrozenTrial

from pipeline.percent import percent
from pipeline.settings import TrainSettings

ROUNDS = (6, 3, 2)
"""Settings that are trained on the first, the second and each further fresh seed."""
FRONT_POINTS = 3
"""Points of the front that are trained on every fresh seed."""
SIGNIFICANT_Z = 1.96
"""Standard errors of a difference beyond which it is significant (two-sided, 5 %)."""


@dataclass(frozen=True)
class Finalist:
    """A trial among the best, and the objective of its settings on seeds that no trial had.

    A seed on which the training failed has a value in `confirmed` that is worse than any other.
    """

    trial: FrozenTrial
    settings: TrainSettings
    confirmed: list[float]

    @property
    def mean(self) -> float:
        return mean(self.confirmed)

    @property
    def seconds(self) -> float:
        """Seconds of the trial in the search for each of its epochs; its cost."""
        epochs = max(1, len(self.trial.intermediate_values))
        return self.trial.duration.total_seconds() / epochs if self.trial.duration else 0.0


@dataclass(frozen=True)
class Verdict:
    """The alias that a model got, and why, in a sentence."""

    version: str
    alias: str
    reason: str


def confirmed_in_round(number: int, cost: str) -> int:
    """How many of the best settings are trained on fresh seed `number`, from 0 on."""
    return ROUNDS[min(number, len(ROUNDS) - 1)] if cost == "none" else FRONT_POINTS


def standard_error(finalists: Sequence[Finalist], faces: int) -> float:
    """Standard error of one confirmed value: by seeds, or by `faces` if that is larger.

    By seeds it is the pooled standard deviation. By faces it is that of a share of `faces`
    validation faces (0 for a value that is no share); all finalists are judged on the same ones, so
    it is rather too large. 0 if neither is known.
    """
    spreads = [stdev(f.confirmed) ** 2 for f in finalists if len(f.confirmed) > 1]
    by_seed = mean(spreads) ** 0.5 if spreads else 0.0
    share = min(max(mean(f.mean for f in finalists), 0.0), 1.0)
    by_faces = (share * (1 - share) / faces) ** 0.5 if faces else 0.0
    return max(by_seed, by_faces)


def not_worse(finalists: Sequence[Finalist], best: Finalist, faces: int) -> list[Finalist]:
    """The finalists that do not differ significantly from `best`, without it."""
    error = standard_error(finalists, faces)
    return [
        other
        for other in finalists
        if other is not best
        and abs(other.mean - best.mean)
        < SIGNIFICANT_Z * error * (1 / len(other.confirmed) + 1 / len(best.confirmed)) ** 0.5
    ]


def shown(value: float, objective: str) -> str:
    """A value of the objective for a person: a percentage, or a loss."""
    return f"{value:.4f}" if objective == "loss" else percent(value)
