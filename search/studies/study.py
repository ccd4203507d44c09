"""Study: creation, workers, and the call of the final phase."""

import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from pipeline.data import dataset, splitting
from pipeline.errors import InputError
from pipeline.runs import addresses, process, queries, tracking
from pipeline.runs.tracking import Run
from pipeline.settings import LATEST
from pipeline.steps.data import dataset_address
from search.grids import report_grid
from search.jobs import CHECK_DEVICE, job
from search.methods.samplers import make_pruner, make_sampler, sampler_seed, silence_optuna
from search.methods.space import Point, complete, is_inside, make_space, max_small_epochs, suggest
from search.settings import SearchSettings
from search.studies import finalize, storage, trial

FIXED = ("network", "width", "epochs", "max_train_faces", "space", "seed")
"""Settings that can't change within a study, since its trials would not be comparable."""
WAIT = 2.0
"""Seconds between two checks whether a trial that runs elsewhere has to be retried."""


def search(settings: SearchSettings) -> str:
    """Start or continue a study and run it to its end; returns the id of its run."""
    queries.use_store()
    with ExitStack() as opening:
        opening.enter_context(storage.lock(settings.storage))
        database = storage.open_storage(settings.storage)
        study = open_study(settings, database)
        if known := study.user_attrs.get("parent"):
            queries.get(known, "study")
        tracking.discard_project_run(known)
        with tracking.record("study", settings, name=settings.study, run_id=known) as parent:
            data = prepare(study, settings, parent)
            opening.close()
            job.run_single(CHECK_DEVICE, "auto", name="this computer")
            workers = [
                Worker(number, settings, data, database, parent.id)
                for number in range(settings.workers)
            ]
            try:
                job.run_parallel(settings.workers, Worker.run, workers)
            except StorageInternalError as error:
                raise storage.unreachable(settings.storage, error) from error
            with storage.lock(settings.storage, ".end"):
                finalize.finish(study, settings, data, parent)
    return parent.id


def open_study(settings: SearchSettings, database: RDBStorage) -> optuna.Study:
    """Load the study by its name, created if there is none.

    Raises InputError if a setting of `FIXED` differs from the study's.
    """
    silence_optuna()
    study = optuna.create_study(
        storage=database, study_name=settings.study, direction="maximize", load_if_exists=True
    )
    recorded = study.user_attrs.get("settings", {})
    for name in FIXED:
        if name in recorded and recorded[name] != getattr(settings, name):
            raise InputError(
                f"{name}={getattr(settings, name)}: the study {settings.study} was begun with "
                f"{name}={recorded[name]}; give that, or another study="
            )
    return study


def prepare(study: optuna.Study, settings: SearchSettings, parent: Run) -> str:
    """Record dataset and settings of a new study, or check them; returns the dataset's address.

    The address may differ between commands and machines, but not the digest. Raises InputError.
    """
    exists = "parent" in study.user_attrs
    data = study.user_attrs["data"] if exists and settings.data == LATEST else settings.data
    address = dataset_address(data, parent)
    faces = dataset.load_without_test(addresses.dataset_folder(address))
    if exists and faces.digest != study.user_attrs["digest"]:
        raise InputError(
            f"data={settings.data}: the study {settings.study} was begun on another dataset "
            f"(digest {study.user_attrs['digest']}, not {faces.digest}); give another study="
        )
    if exists:
        return address
    dataset.require_test(faces, address)
    splitting.subsample(faces, settings.max_train_faces, settings.seed)  # raises if too few
    parent.use_dataset(faces, address, context="train")
    study.set_user_attr("settings", {name: asdict(settings)[name] for name in FIXED})
    study.set_user_attr("data", address)
    study.set_user_attr("digest", faces.digest)
    study.set_user_attr("parent", parent.id)
    return address


def first_points(settings: SearchSettings) -> list[Point]:
    """Points that are tried before the sampler's: the network's recipe and the report's grid.

    Points outside the search space are left out.
    """
    space = make_space(settings)
    base = trial.trial_settings(settings, settings.data, {"epochs": settings.epochs})
    points: list[Point] = [] if settings.network == "report" else [{}]
    points += report_grid.points(settings.grid, settings.epochs)
    points = [complete(point, space, base) for point in points]
    return [p for k, p in enumerate(points) if p not in points[:k] and is_inside(p, space)]


@dataclass
class Worker:
    """A thread of a study, which runs one trial after another until the study has enough."""

    number: int
    settings: SearchSettings
    data: str
    database: RDBStorage
    parent_id: str
    start: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.space = make_space(self.settings)
        small_epochs = max_small_epochs(self.settings)
        self.study = optuna.load_study(
            study_name=self.settings.study,
            storage=self.database,
            pruner=make_pruner(self.settings.pruner, self.settings.epochs, small_epochs),
        )

    def run(self, stop: threading.Event) -> None:
        """Run trials until the study has enough, the timeout is over, or `stop` is set.

        Raises InputError for an environment error, such as a missing dataset.
        """
        while not stop.is_set() and not 0 < self.settings.timeout <= time.monotonic() - self.start:
            with storage.lock(self.settings.storage):
                if self.has_enough():
                    return
                next_trial = self.take()
            if next_trial is None:
                stop.wait(WAIT)
            else:
                self.train(*next_trial, stop=stop)

    def has_enough(self) -> bool:
        """Whether all trials of the study are done. The caller holds the lock."""
        storage.fail_dead_trials(self.study)
        count = storage.count(self.study)
        return count.n_done >= self.settings.trials and not count.running

    def take(self) -> tuple[optuna.Trial, Point] | None:
        """Take the next trial and its point. The caller holds the lock.

        None if the running trials suffice; one of them may still fail.
        """
        count = storage.count(self.study)
        if count.n_done + count.running >= self.settings.trials:
            return None
        first = first_points(self.settings)
        self.enqueue_next(first)
        trials = len(self.study.get_trials(deepcopy=False))
        seed = sampler_seed(self.settings.seed, trials)
        self.study.sampler = make_sampler(self.settings.sampler, seed, first[0] if first else {})
        current = self.study.ask()
        current.set_user_attr("process", process.this_process())
        current.set_user_attr("worker", self.number)
        return current, suggest(current, self.space)

    def enqueue_next(self, points: list[Point]) -> None:
        """Enqueue the first of `points` that was not tried, unless a retry is waiting.

        One at a time, because Optuna takes waiting trials in order: a retry must not wait behind
        points for which the study may have no trials left.
        """
        trials = self.study.get_trials(deepcopy=False)
        tried = [trial.system_attrs.get("fixed_params") for trial in trials]
        untried = [point for point in points if point not in tried]
        if untried and not any(trial.state == TrialState.WAITING for trial in trials):
            self.study.enqueue_trial(untried[0])

    def train(self, current: optuna.Trial, point: Point, *, stop: threading.Event) -> None:
        """Train a trial, and record its outcome in the study."""
        heartbeat = storage.make_heartbeat(self.database, current)
        training = trial.trial_settings(self.settings, self.data, point)
        try:
            outcome = trial.run(
                current,
                training,
                self.parent_id,
                self.settings.epochs,
                heartbeat=heartbeat,
                stop=stop,
            )
        except UpdateFinishedTrialError:
            print(f"trial {current.number} was taken over by another worker")
            return
        self.tell(current, outcome)
        if outcome.kind == "refused":
            raise InputError(outcome.text)
        print(self._line(current.number), flush=True)

    def tell(self, current: optuna.Trial, outcome: job.Outcome) -> None:
        """Record a trial's outcome in the study; one that could not end by itself is retried."""
        if outcome.text and outcome.kind != "pruned":
            current.set_user_attr("error", outcome.text)
        match outcome.kind:
            case "returned":
                self.study.tell(current, outcome.value, skip_if_finished=True)
            case "pruned":
                self.study.tell(current, state=TrialState.PRUNED, skip_if_finished=True)
            case "failed":
                self.study.tell(current, state=TrialState.FAIL, skip_if_finished=True)
            case "killed":
                storage.fail_and_retry(self.study, current.number, outcome.text)
            case "interrupted" | "refused":
                storage.fail_and_retry(self.study, current.number, outcome.text, was_killed=False)

    def _line(self, number: int) -> str:
        ended = self.study.trials[number]
        value = f"validation accuracy {ended.value:.1%}" if ended.value is not None else ""
        error = ended.user_attrs.get("error", "")
        seconds = ended.duration.total_seconds() if ended.duration else 0
        point = " ".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in ended.params.items()
        )
        return (
            f"trial {number} {ended.state.name.lower()} {value}{error} after "
            f"{len(ended.intermediate_values)} epochs, {seconds:.0f} s: {point}"
        )
