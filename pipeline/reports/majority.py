"""An evaluation against the majority of several people's votes, beside that against the labels."""

from dataclasses import dataclass

import numpy as np

from pipeline.data import votes
from pipeline.data.dataset import Bytes
from pipeline.percent import interval, percent
from pipeline.reports import metrics
from pipeline.reports.metrics import Metrics


@dataclass(frozen=True)
class AgainstVotes:
    """`result` is of the faces with one class on top of their votes, against that class.

    `labels_agree` is the share of these faces whose label is that class.
    """

    result: Metrics
    labels_agree: float

    def figures(self, split: str) -> dict[str, float]:
        """Metrics by their name in the store."""
        return {
            f"{split}/accuracy_votes": self.result.accuracy,
            f"{split}/accuracy_votes_low": self.result.low,
            f"{split}/accuracy_votes_high": self.result.high,
            f"{split}/labels_agree_votes": self.labels_agree,
        }

    def __str__(self) -> str:
        bounds, count = interval(self.result.low, self.result.high), len(self.result.labels)
        return (
            f"Against the votes' majority the accuracy is {percent(self.result.accuracy)} "
            f"({bounds}, {count:,} faces with one class on top); the dataset's label agrees with "
            f"it on {percent(self.labels_agree)} of these faces."
        )


def against_votes(evaluation: Metrics, cast: Bytes) -> AgainstVotes | None:
    """The evaluation against the majority of votes (N, classes) of the same faces.

    None if no face has one class on top.
    """
    first, is_clear = votes.majority(cast)
    if not is_clear.any():
        return None
    result = metrics.compute(
        first[is_clear],
        evaluation.probabilities[is_clear],
        evaluation.classes,
        votes.AGAINST["votes"],
    )
    return AgainstVotes(result, float(np.mean(evaluation.labels[is_clear] == result.labels)))
