"""Artifacts of an evaluation: its tables and plots, as files."""

import json
from pathlib import Path

from pipeline.reports import metrics, plots
from pipeline.reports.metrics import Metrics


def write(result: Metrics, split: str, folder: Path, more: str = "") -> None:
    """Write the classification report, with the sentence `more` below it, the confusion matrix,
    and plots of the classes and of the reliability."""
    (folder / "classification_report.txt").write_text(metrics.classification_text(result, more))
    (folder / "classification_report.json").write_text(json.dumps(result.by_class, indent=2))
    (folder / "confusion_matrix.csv").write_text(metrics.confusion_csv(result))
    plots.confusion_matrix(result, split, folder / "confusion_matrix.png")
    plots.class_figures(result, split, folder / "classes.png")
    plots.reliability_diagram(result, split, folder / "reliability.png")
