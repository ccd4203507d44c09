"""Checks of a command's input without importing Keras, so that errors show within two seconds.

Each raises InputError. The step repeats the check, since the store may change in between.
"""

from importlib.util import find_spec

from pipeline.data import sources
from pipeline.errors import InputError
from pipeline.runs import addresses
from pipeline.settings import (
    LATEST,
    AuditSettings,
    EnsembleSettings,
    EvaluateSettings,
    ExportSettings,
    MainSettings,
    TrainSettings,
)
from pipeline.steps.resume import resumed_settings


def main(settings: MainSettings) -> None:
    sources.require(settings.source)
    _check_initial(settings.init_from)


def train(settings: TrainSettings) -> None:
    resumed_settings(settings)
    _check_initial(settings.init_from)
    if settings.data != LATEST:
        addresses.dataset_folder(settings.data)


def evaluate(settings: EvaluateSettings) -> None:
    for run in addresses.trainings(settings.run):
        _, trained_by = addresses.model_file(run, onnx=True)
        addresses.dataset_folder(addresses.dataset_to_evaluate(settings, trained_by))


def ensemble(settings: EnsembleSettings) -> None:
    _, trained_by = addresses.model_files(settings.run)
    addresses.dataset_folder(addresses.dataset_to_evaluate(settings, trained_by))


def export(settings: ExportSettings) -> None:
    if not (find_spec("onnx") and find_spec("tf2onnx")):
        raise InputError("export needs more packages: pip install -r requirements-export.txt")
    _, trained_by = addresses.model_file(settings.run)
    if settings.precision != "float32" or settings.data is not None:
        addresses.dataset_folder(addresses.dataset_to_evaluate(settings, trained_by))


def audit(settings: AuditSettings) -> None:
    if not find_spec("cleanlab"):
        raise InputError("audit needs cleanlab: pip install -r requirements-audit.txt")
    if settings.data != LATEST:
        addresses.dataset_folder(settings.data)


def _check_initial(address: str | None) -> None:
    if address is not None:
        addresses.model_file(address)
