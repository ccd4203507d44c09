"""Resuming a stopped training: its settings and its checkpoint."""

from dataclasses import asdict, replace

from pipeline.data.dataset import Dataset
from pipeline.errors import InputError
from pipeline.runs import params, process, queries
from pipeline.runs.tracking import Run
from pipeline.settings import LATEST, TrainSettings, recipe


def resumed_settings(settings: TrainSettings) -> TrainSettings:
    """Settings of the run that is resumed; `settings` themselves if none is.

    Raises InputError if the run can't be resumed, or if a setting was given another value.
    """
    if settings.resume is None:
        return settings
    run = queries.get(settings.resume, "train")
    if run.info.status == "FINISHED":
        raise InputError(
            f"resume={settings.resume}: this run has finished; there is nothing to resume"
        )
    if run.info.status == "RUNNING" and process.is_running(run.data.tags.get("process", "")):
        raise InputError(f"resume={settings.resume}: this run is still training; stop it first")
    if not queries.checkpoint_of(settings.resume).exists():
        raise InputError(
            f"resume={settings.resume}: no checkpoint in {queries.CHECKPOINTS.resolve()}; it "
            "finished no epoch, was resumed already, or ran in another folder or on another machine"
        )
    # A setting that was added after the run had its present default in it.
    recorded = asdict(TrainSettings()) | params.recorded_settings(run.data.params, TrainSettings)
    # The same dataset may have another address now.
    data = run.data.tags["dataset"] if settings.data == LATEST else settings.data
    recorded |= {"resume": settings.resume, "data": data}
    # A default value counts as not given, even if the user typed it.
    defaults = asdict(recipe(TrainSettings, settings.network)) | {"network": TrainSettings.network}
    for name, value in asdict(settings).items():
        if value not in (defaults[name], recorded[name]):
            raise InputError(
                f"{name}={value}: run {settings.resume} has {name}={recorded[name]}, and a resumed "
                "training keeps its settings"
            )
    return replace(settings, **recorded)


def move_checkpoint(stopped: str, faces: Dataset, run: Run) -> None:
    """Move the checkpoint of the stopped run to `run`; the stopped one can't be resumed again.

    Raises InputError if that run used another dataset, whose training faces may be held out now, or
    if the checkpoint is damaged.
    """
    from pipeline.training import checkpoint  # it imports Keras, which `resumed_settings` must not

    tags = queries.get(stopped, "train").data.tags
    if tags["dataset_digest"] != faces.digest:
        raise InputError(
            f"resume={stopped}: the dataset has changed since (its digest is now {faces.digest}); "
            "give the address of the old one as data="
        )
    checkpoint_file = queries.checkpoint_of(stopped)
    checkpoint.require_whole(checkpoint_file)
    run.tag(**{name: tags[name] for name in ("start_digest", "start_trained_by") if name in tags})
    checkpoint_file.replace(run.checkpoint)
    checkpoint.remove(checkpoint_file)
