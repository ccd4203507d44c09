"""The task of `benchmarks.throughput`: a trial that sleeps instead of training."""

import time
from collections.abc import Sequence
from typing import Any

from pipeline.data.dataset import Dataset
from pipeline.runs.tracking import Run
from pipeline.settings import TrainSettings
from pipeline.steps.train import repeatable_note
from pipeline.training.checkpoint import TrainState
from pipeline.training.fit import OnEpoch, TrainResult
from search.jobs import job, tasks


def train_trial(seconds: float, send: job.Send, settings: TrainSettings, *arguments: Any) -> float:
    """`search.jobs.tasks.train_trial`, of which each epoch sleeps for `seconds`."""

    def sleep(
        settings: TrainSettings, faces: Dataset, run: Run, *, on_epoch: Sequence[OnEpoch], **_: Any
    ) -> TrainResult:
        run.log_environment()
        run.tag(precision="none")
        run.describe(repeatable_note(settings, run))
        state = TrainState()
        for epoch in range(1, settings.epochs + 1):
            time.sleep(seconds)
            accuracy = epoch / (epoch + 1)
            logs = {"train/accuracy": accuracy, "train/loss": 1.0, "learning_rate": settings.lr}
            logs |= {"val/accuracy": accuracy, "val/loss": 1.0, "time/images_per_second": 1.0}
            state.record(logs, [], settings)
            for call in (run.log_epoch, *on_epoch):
                call(epoch, logs)
        return TrainResult(settings, faces, state, interrupted=False)

    tasks.fit_and_record = sleep  # in the trial's own process
    return tasks.train_trial(send, settings, *arguments)
