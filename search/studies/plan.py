"""Plan of a study: what all of its trials share, and the points that are tried first."""

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import optuna

from pipeline.data import dataset
from pipeline.errors import InputError
from pipeline.runs import addresses, params, queries
from pipeline.settings import Hyperparameters, TrainSettings, recipe
from search.grids import report_grid
from search.jobs import placement
from search.methods.space import (
    STUDY_SETTINGS,
    Point,
    Space,
    make_space,
    max_small_epochs,
    parse_values,
)
from search.settings import SearchSettings

OF_THE_STUDY = STUDY_SETTINGS | {"width"}
"""Settings that a study does not take over from the run that it starts from."""


@dataclass(frozen=True)
class Plan:
    """Settings of a study, the address of its dataset, and values that replace the recipe's.

    `earlier` is the study of `warm_start`.
    """

    settings: SearchSettings
    data: str
    start: Point
    earlier: optuna.Study | None = None

    @cached_property
    def space(self) -> Space:
        """What the study varies."""
        return make_space(self.settings)

    @cached_property
    def slots(self) -> placement.Slots:
        """Where this command's trials run. Raises InputError."""
        settings = self.settings
        return placement.slots(settings.ray, settings.gpus, settings.workers)

    @cached_property
    def base(self) -> TrainSettings:
        """What a trial trains beside its point: recipe, start, the study's and fixed values."""
        settings = self.settings
        own: dict[str, Any] = {
            "data": self.data,
            "width": settings.width,
            "max_train_faces": settings.max_train_faces,
            "seed": settings.seed,
            "threads": self.slots.threads,
            "epochs": settings.epochs,
            "keep_epoch": "best",  # as the pruner judges; it finds the length (`Space.suggest`)
            "monitor": settings.objective,
        }
        return replace(recipe(TrainSettings, settings.network), **own | self.start)

    def training(self, point: Point) -> TrainSettings:
        """The training of a trial with the parameters of `point`."""
        return replace(self.base, **self.space.fixed | point)

    @cached_property
    def classes(self) -> int:
        """Number of the dataset's classes."""
        return len(dataset.load_without_test(addresses.dataset_folder(self.data)).classes)

    @property
    def max_small_epochs(self) -> int:
        """The most epochs at a smaller image size that a trial may have."""
        return max_small_epochs(self.settings, self.space, self.training({}))

    def first_points(self) -> list[Point]:
        """Points that are tried before any proposal: the start or the recipe, the report's grid.

        Points of the grid that lie outside the space are left out. Raises InputError if the start
        does.
        """
        settings = self.settings
        has_start = self.start or settings.network != "report"
        first = [self.space.complete({}, self.base)] if has_start else []
        self._check_start()
        grid = report_grid.points(settings.grid, settings.epochs)
        whole = [*first, *(self.space.complete(point, self.base) for point in grid)]
        return [p for k, p in enumerate(whole) if p not in whole[:k] and self.space.contains(p)]

    def _check_start(self) -> None:
        outside = [
            f"{name}={value}"
            for name, value in self.start.items()
            if name in self.space.bounds and not self.space.contains_value(name, value)
        ]
        if outside:
            raise InputError(
                f"start={self.settings.start}: {', '.join(outside)} is outside the search space; "
                "widen it"
            )


def starting_values(settings: SearchSettings) -> Point:
    """The values of `start`: a train run's, or those given as name=value. Raises InputError."""
    if settings.start is None:
        return {}
    if "=" in settings.start:
        return _fitting(parse_values(settings.start, "start"), settings)
    run = queries.get(settings.start, "train", "trial", "confirm")
    values = asdict(Hyperparameters()) | params.recorded_settings(run.data.params, Hyperparameters)
    if values["network"] != settings.network:
        raise InputError(
            f"start={settings.start}: this run trained network={values['network']}; give "
            f"network={values['network']}"
        )
    own = recipe(Hyperparameters, settings.network)
    changed = {
        name: value
        for name, value in values.items()
        if name not in OF_THE_STUDY and value != getattr(own, name)
    }
    return _fitting(changed, settings)


def _fitting(values: Point, settings: SearchSettings) -> Point:
    """`values`, with no more epochs than a trial may have."""
    if "epochs" in values:
        return values | {"epochs": min(values["epochs"], settings.epochs)}
    return values
