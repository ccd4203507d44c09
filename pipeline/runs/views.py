"""Saved views of MLflow's runs table: which runs, which columns and in which order.

MLflow 3.15 and later keeps a view as a tag of the experiment, `mlflow.sharedViewState.<key>`; an
address with the key opens it, and the menu "Views" lists it by name.
"""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

PREFIX = "mlflow.sharedViewState."


@dataclass(frozen=True)
class View:
    """A view: its key in addresses, its name, and what it shows.

    `steps` are the values of the tag `step` that it lists, `columns` metrics, params and tags as
    the table names them, `order` the column it is sorted by (highest or latest first), and `charts`
    the metrics that its chart view draws.
    """

    key: str
    name: str
    steps: Sequence[str]
    columns: Sequence[str]
    order: str
    widths: Mapping[str, int] = field(default_factory=dict)

    @property
    def tag(self) -> str:
        return PREFIX + self.key

    def value(self, milliseconds: int) -> str:
        """The tag's value, made at that time (Unix)."""
        state = {
            "searchFilter": f"tags.step IN ({', '.join(repr(step) for step in self.steps)})",
            "orderByKey": self.order,
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": list(self.columns),
            "columnWidths": {NAME_COLUMN: 330, **self.widths},
            "columnOrder": [],
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


NAME_COLUMN = "attributes.`Run Name`"
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
    ("train",),
    [
        *_metrics("test/accuracy", "test/accuracy_low", "test/accuracy_high", "val/best_accuracy"),
        *_params("network", "optimizer", "lr", "batch_size", "epochs", "seed"),
        "attributes.`Dataset`",
    ],
    "metrics.`test/accuracy`",
)
STUDIES = View(
    "studies",
    "Studies",
    ("study", "trial", "confirm", "grid"),
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
    ("evaluate", "compare"),
    [
        *_metrics("test/accuracy", "test/accuracy_low", "test/accuracy_high"),
        *_metrics("test/accuracy_unseen", "test/macro_f1"),
        "attributes.`Dataset`",
        *_tags("earlier_looks"),
    ],
    CREATED,
)
VIEWS = (TRAININGS, STUDIES, EVALUATIONS)
