"""Display of a running study on a terminal: trials, the best so far, time left, what trains now."""

import threading
import time
from collections.abc import Sequence
from types import TracebackType

from optuna.trial import FrozenTrial
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from search.settings import SearchSettings
from search.studies import storage
from search.studies.deadline import Deadline
from search.studies.plan import Plan
from search.studies.results import confirmed_in_round, shown


class Display:
    """Bars on a terminal, nothing elsewhere; `print` writes above them.

    The time left is the epochs that are still expected over the epochs a second so far, all workers
    together: ended trials had as many epochs as further ones will have, and trainings at the end
    of the study have all of them. It is no more than what the deadline leaves.
    """

    def __init__(self, plan: Plan, deadline: Deadline) -> None:
        self._plan = plan
        self._deadline = deadline
        self._lock = threading.Lock()
        self._begin = time.monotonic()
        self._epochs: dict[str, int] = {}
        """Epochs of each training of this command, ended ones included."""
        self._tasks: dict[str, TaskID] = {}
        self._confirmed = 0
        self._console = Console()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            transient=True,
            refresh_per_second=2,
            redirect_stdout=False,  # it would break long lines, such as commands to copy
            disable=not self._console.is_terminal,
        )
        self._all = self._bars.add_task("study", total=1, note="starting")

    def __enter__(self) -> "Display":
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the bars away, for a training that shows its own."""
        self._bars.stop()

    def epoch(self, training: str, epoch: int, epochs: int) -> None:
        """A training, such as "trial 7", has ended an epoch of `epochs`."""
        with self._lock:
            self._epochs[training] = epoch
            if training not in self._tasks:
                self._tasks[training] = self._bars.add_task(training, total=epochs, note="")
            note = f"epoch {epoch}/{epochs}"
            self._bars.update(self._tasks[training], completed=epoch, note=note)

    def print(self, text: str) -> None:
        """Print text as it is."""
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)

    def ended(self, training: str, *, confirmed: bool = False) -> None:
        """A training has ended, or was pruned; `confirmed`: it was one of the study's end."""
        with self._lock:
            self._confirmed += confirmed
            if training in self._tasks:
                self._bars.remove_task(self._tasks.pop(training))

    def summary(self, trials: Sequence[FrozenTrial]) -> str:
        """Trials, the best so far and the time left in words; updates the first bar."""
        settings = self._plan.settings
        n_done = storage.count(trials).n_done
        parts = [f"{n_done} of {settings.trials} trials"]
        if best := storage.best_trial(trials, maximize=settings.maximize):
            value = shown(best.value or 0.0, settings.objective)
            parts.append(f"best {value} (trial {best.number})")
        with self._lock:
            left = self._epochs_left(trials, n_done)
            seen = sum(self._epochs.values())
            if seen:
                expected = left * (time.monotonic() - self._begin) / seen
                seconds = max(0, round(min(expected, self._deadline.left)))
                parts.append(f"about {seconds // 60}:{seconds % 60:02} left")
            text = " · ".join(parts)
            self._bars.update(self._all, completed=seen, total=seen + left, note=text)
        return text

    def _epochs_left(self, trials: Sequence[FrozenTrial], n_done: int) -> float:
        settings = self._plan.settings
        lengths = [len(t.intermediate_values) for t in trials if t.intermediate_values]
        each = sum(lengths) / len(lengths) if lengths else settings.epochs
        wanted = max(0, settings.trials - n_done)
        running = sum(self._epochs[name] for name in self._tasks)
        end = expected_trainings(settings)
        return max(0.0, wanted * each - running) + max(0, end - self._confirmed) * settings.epochs


def expected_trainings(settings: SearchSettings) -> int:
    """Trainings at the end of a study: those on fresh seeds, and the winner's."""
    rounds = [confirmed_in_round(number, settings.cost) for number in range(settings.confirm)]
    return sum(min(count, settings.trials) for count in rounds) + 1
