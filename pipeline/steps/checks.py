"""Checks of a command's input that need no Keras, so that a mistake is answered in a second or two.

Each raises InputError. The step repeats them: the store may have changed by then.
"""

from pipeline.data import sources
from pipeline.runs import addresses
from pipeline.settings import (
    LATEST,
    EvaluateSettings,
    MainSettings,
    PredictSettings,
    TrainSettings,
)
from pipeline.steps.resume import resumed


def main(settings: MainSettings) -> None:
    sources.require(settings.source)
    _check_initial(settings.init_from)


def train(settings: TrainSettings) -> None:
    resumed(settings)
    _check_initial(settings.init_from)
    if settings.data != LATEST:
        addresses.dataset_folder(settings.data)


def evaluate(settings: EvaluateSettings) -> None:
    _, trained_by = addresses.model_file(settings.run)
    addresses.dataset_folder(addresses.dataset_to_evaluate(settings, trained_by))


def predict(settings: PredictSettings) -> None:
    for run in settings.runs.split(","):
        addresses.model_file(run.strip())
    if settings.images != "sample":
        sources.read_picture(settings.images)


def _check_initial(address: str | None) -> None:
    if address is not None:
        addresses.model_file(address)
