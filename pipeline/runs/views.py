"""Saved views of MLflow's runs table: which runs, which columns and in which order.

MLflow 3.15 and later keeps a view as a tag of the experiment, `mlflow.sharedViewState.<key>`; an
address with the key opens it, and the menu "Views" lists it by name.
"""

import base64
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

PREFIX = "mlflow.sharedViewState."


@dataclass(frozen=True)
class View:
    """A view: its key in addresses, its name, and what it shows.

    `runs` is MLflow's filter for what it lists, `columns` are metrics, params and tags as the
    table names them, and `order` is the column it is sorted by (highest or latest first).
    """

    key: str
    name: str
    runs: str
    columns: Sequence[str]
    order: str

    @property
    def widths(self) -> dict[str, int]:
        """Pixels of the columns whose names are too long for MLflow's own width."""
        names = {column: column.partition("`")[2].rstrip("`") for column in self.columns}
        return {column: 30 + 7 * len(name) for column, name in names.items() if len(name) > 10}

    @property
    def tag(self) -> str:
        return PREFIX + self.key

    def value(self, milliseconds: int) -> str:
        """The tag's value, made at that time (Unix)."""
        state = {
            "searchFilter": self.runs,
            "orderByKey": self.order,
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": list(self.columns),
            # MLflow applies widths only to the columns that are in the order.
            "columnOrder": [NAME_COLUMN, DATE_COLUMN, *self.columns],
            "columnWidths": {NAME_COLUMN: 360, **self.widths},
            "runsExpanded": {},
            "runsPinned": [],
            "runsHidden": [],
            "runsVisibilityMap": {},
            "runsHiddenMode": "FIRST_10_RUNS",
            "viewMaximized": False,
            "runListHidden": False,
            "isAccordionReordered": False,
            "useGroupedValuesInCharts": True,
            "hideEmptyCharts": True,
            "groupBy": None,
            "groupsExpanded": {},
            "autoRefreshEnabled": True,
            "globalLineChartConfig": {
                "xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": "",
            },
        }  # fmt: skip
        packed = base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
        about = {"name": self.name, "createdAt": milliseconds, "updatedAt": milliseconds}
        return json.dumps(about | {"state": f"deflate;{packed}"})


NAME_COLUMN, DATE_COLUMN = "attributes.`Run Name`", "runDateAndNestInfo"
CREATED = "attributes.start_time"


def _metrics(*names: str) -> list[str]:
    return [f"metrics.`{name}`" for name in names]


def _params(*names: str) -> list[str]:
    return [f"params.`{name}`" for name in names]


def _tags(*names: str) -> list[str]:
    return [f"tags.`{name}`" for name in names]


TRAININGS = View(
    "trainings",
    "Trainings",
    "tags.step LIKE 'train%'",  # of one seed, or of several
    [
        *_metrics("test/accuracy", "val/best_accuracy"),
        *_params("network", "optimizer", "lr", "batch_size", "epochs", "seed"),
        *_metrics("test/accuracy_low", "test/accuracy_high"),
        "attributes.`Dataset`",
    ],
    "metrics.`test/accuracy`",
)
STUDIES = View(
    "studies",
    "Studies",
    "tags.study LIKE '%'",  # the studies' runs and those of their trials
    [
        *_metrics("val/best_accuracy", "test/accuracy", "best_epoch"),
        *_params("study", "network", "optimizer", "lr", "batch_size", "epochs"),
        *_tags("trial_state"),
    ],
    CREATED,
)
EVALUATIONS = View(
    "evaluations",
    "Evaluations",
    "tags.faces_digest LIKE '%'",  # evaluate and compare runs
    [
        *_metrics("test/accuracy", "test/accuracy_low", "test/accuracy_high"),
        *_metrics("test/accuracy_unseen", "test/macro_f1"),
        "attributes.`Dataset`",
        *_tags("earlier_evaluations"),
    ],
    "metrics.`test/accuracy`",  # by date MLflow would list their parents
)
VIEWS = (TRAININGS, STUDIES, EVALUATIONS)
