"""Names of metrics in the store, in groups by slash; MLflow shows a section for each group.

Runs of earlier versions have former names, such as val_accuracy, which `present` turns into these.
"""

import re
from collections.abc import Mapping

from pipeline.data import SPLITS

IMAGES_PER_SECOND = "time/images_per_second"
RECORDING_SECONDS = "time/recording_seconds"
DIGITS = 6
"""Significant digits of a metric in the store: enough to tell two runs apart, and legible."""

_FORMER = {
    "images_per_second": IMAGES_PER_SECOND,
    "recording_seconds": RECORDING_SECONDS,
}
_FORMER_GROUPS = (
    (re.compile(r"best_val_(\w+)"), r"val/best_\1"),
    (re.compile(rf"({'|'.join(SPLITS)})_((?:precision|recall|f1)_\w+)"), r"\1_by_class/\2"),
    (re.compile(rf"(val|{'|'.join(SPLITS)})_(\w+)"), r"\1/\2"),
)


def present(name: str) -> str:
    """The present name of a metric that may have its former one."""
    for pattern, replacement in _FORMER_GROUPS:
        if pattern.fullmatch(name):
            return pattern.sub(replacement, name)
    return _FORMER.get(name, name)


def with_present_names(metrics: Mapping[str, float]) -> dict[str, float]:
    return {present(name): value for name, value in metrics.items()}


def rounded(value: float) -> float:
    """`value` with `DIGITS` significant digits."""
    return float(f"{value:.{DIGITS}g}")
