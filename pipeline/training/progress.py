"""Progress of a training: a bar with the remaining time on a terminal, and a line an epoch."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.runs.metric_names import IMAGES_PER_SECOND


class EpochProgress:
    """Progress bar on a terminal, plain lines elsewhere. Its methods are callbacks of `fit`."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.before = 0
        """Epochs of earlier trainings, where `epochs` counts those of several."""
        self.last_end: float | None = None
        self.console = Console()
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/" + str(epochs)),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("training", total=None, epoch=1)

    def __enter__(self) -> "EpochProgress":
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def on_batch(self, epoch: int, batch: int, batches: int) -> None:
        epoch += self.before
        self.last_end = self.last_end or time.monotonic()  # excludes the time to start up
        self.bar.update(
            self.task,
            total=self.epochs * batches,
            completed=(epoch - 1) * batches + batch,
            epoch=epoch,
        )

    def on_epoch(self, epoch: int, logs: dict[str, float]) -> None:
        epoch += self.before
        now = time.monotonic()  # estimate from this epoch only: resumed ones took no time
        left = (now - (self.last_end or now)) * (self.epochs - epoch)
        self.last_end = now
        self.bar.print(
            f"epoch {epoch:>3}/{self.epochs}  "
            f"train loss {logs['train/loss']:.4f} accuracy {logs['train/accuracy']:.4f}  "
            f"validation loss {logs['val/loss']:.4f} accuracy {logs['val/accuracy']:.4f}  "
            f"{logs[IMAGES_PER_SECOND]:,.0f} faces/s  {_minutes(left)} left",
            highlight=False,
            soft_wrap=True,
        )


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
