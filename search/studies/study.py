"""Study: open it, run its workers, finish it."""

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
from search.methods.space import Point, complete, is_inside, make_space, most_small_epochs, suggest
from search.settings import SearchSettings
from search.studies import finalize, storage, summary, trial

FIXED = ("network", "width", "epochs", "max_train_faces", "space", "seed")
"""Settings that a study keeps: with others its trials would not compare."""
WAIT = 2.0
"""Seconds between two checks whether a trial that runs elsewhere has to be repeated."""


def search(settings: SearchSettings) -> str:
    """Run a study, or go on with it, to its end; returns the id of its run."""
    queries.use_store()
    with ExitStack() as opening:
        opening.enter_context(storage.lock(settings.storage))
        database = storage.open_storage(settings.storage)
        study = open_study(settings, database)
        if known := study.user_attrs.get("parent"):
            queries.get(known, "study")
        tracking.give_up_joining(known)
        with tracking.record("study", settings, name=settings.study, run_id=known) as parent:
            data = prepare(study, settings, parent)
            opening.close()
            job.alone(CHECK_DEVICE, "auto", what="this computer")
            workers = [
                Worker(number, settings, data, database, parent.id)
                for number in range(settings.workers)
            ]
            try:
                job.side_by_side(settings.workers, Worker.run, workers)
            except StorageInternalError as error:
                raise storage.no_answer(settings.storage, error) from error
            with storage.lock(settings.storage, ".end"):
                finalize.finish(study, settings, data, parent)
    return parent.id


def open_study(settings: SearchSettings, database: RDBStorage) -> optuna.Study:
    """The study by its name, made if there is none. Raises InputError if it was begun otherwise."""
    silence_optuna()
    study = optuna.create_study(
        storage=database, study_name=settings.study, direction="maximize", load_if_exists=True
    )
    begun = study.user_attrs.get("settings", {})
    for name in FIXED:
        if name in begun and begun[name] != getattr(settings, name):
            raise InputError(
                f"{name}={getattr(settings, name)}: the study {settings.study} was begun with "
                f"{name}={begun[name]}; give that, or another study="
            )
    return study


def prepare(study: optuna.Study, settings: SearchSettings, parent: Run) -> str:
    """Give a new study its dataset and its settings; returns the dataset's address.

    Another command, or machine, may have the same faces at another address.
    """
    begun = "parent" in study.user_attrs
    data = study.user_attrs["data"] if begun and settings.data == LATEST else settings.data
    address = dataset_address(data, parent)
    faces = dataset.load_without_test(addresses.dataset_folder(address))
    if begun and faces.digest != study.user_attrs["digest"]:
        raise InputError(
            f"data={settings.data}: the study {settings.study} was begun on another dataset "
            f"(digest {study.user_attrs['digest']}, not {faces.digest}); give another study="
        )
    if begun:
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
    """The points that are tried before any proposal: the network's recipe and the report's grid.

    Those that lie outside a space of the user's are left out.
    """
    space = make_space(settings)
    base = trial.trial_settings(settings, settings.data, {"epochs": settings.epochs})
    points: list[Point] = [] if settings.network == "report" else [{}]
    points += report_grid.points(settings.grid, settings.epochs)
    whole = [complete(point, space, base) for point in points]
    return [p for k, p in enumerate(whole) if p not in whole[:k] and is_inside(p, space)]


@dataclass
class Worker:
    """A thread of a study: it takes one trial after another until the study has enough."""

    number: int
    settings: SearchSettings
    data: str
    database: RDBStorage
    parent_id: str
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.space = make_space(self.settings)
        small_epochs = most_small_epochs(self.settings)
        self.study = optuna.load_study(
            study_name=self.settings.study,
            storage=self.database,
            pruner=make_pruner(self.settings.pruner, self.settings.epochs, small_epochs),
        )

    def run(self, stop: threading.Event) -> None:
        """Take trials until the study has enough, time is up, or `stop` is set.

        Raises InputError for an environment error, such as a dataset that is gone.
        """
        while not stop.is_set() and not 0 < self.settings.timeout <= time.monotonic() - self.began:
            with storage.lock(self.settings.storage):
                if self.has_enough():
                    return
                taken = self.take()
            if taken is None:
                stop.wait(WAIT)
            else:
                self.train(*taken, stop=stop)

    def has_enough(self) -> bool:
        """Whether all trials of the study have ended; hold the lock."""
        storage.fail_dead_trials(self.study)
        count = storage.count(self.study)
        return count.settled >= self.settings.trials and not count.running

    def take(self) -> tuple[optuna.Trial, Point] | None:
        """The next trial and its point; None while running trials may fail. Hold the lock."""
        count = storage.count(self.study)
        if count.settled + count.running >= self.settings.trials:
            return None
        first = first_points(self.settings)
        self.enqueue_next(first)
        trials = len(self.study.get_trials(deepcopy=False))
        seed = sampler_seed(self.settings.seed, trials)
        self.study.sampler = make_sampler(self.settings.sampler, seed, first[0] if first else {})
        taken = self.study.ask()
        taken.set_user_attr("process", process.this_process())
        taken.set_user_attr("worker", self.number)
        return taken, suggest(taken, self.space)

    def enqueue_next(self, points: list[Point]) -> None:
        """Enqueue the first of `points` that was not tried, unless a trial waits to be repeated.

        One at a time: Optuna takes waiting trials in their order, and a repeat must not wait behind
        points for which the study may have no trials left.
        """
        trials = self.study.get_trials(deepcopy=False)
        tried = [trial.system_attrs.get("fixed_params") for trial in trials]
        untried = [point for point in points if point not in tried]
        if untried and not any(trial.state == TrialState.WAITING for trial in trials):
            self.study.enqueue_trial(untried[0])

    def train(self, taken: optuna.Trial, point: Point, *, stop: threading.Event) -> None:
        """Train a trial and tell the study how it ended."""
        beat = storage.heartbeat(self.database, taken)
        training = trial.trial_settings(self.settings, self.data, point)
        try:
            outcome = trial.run(
                taken, training, self.parent_id, self.settings.epochs, beat=beat, stop=stop
            )
        except UpdateFinishedTrialError:
            print(f"trial {taken.number} was taken over by another worker")
            return
        self.settle(taken, outcome)
        if outcome.kind == "refused":
            raise InputError(outcome.text)
        print(self._line(taken.number), flush=True)
        summary.record_progress(self.study, self.settings, Run(self.parent_id))

    def settle(self, taken: optuna.Trial, outcome: job.Outcome) -> None:
        """Tell the study how a trial ended. One that could not end by itself is tried again."""
        if outcome.text and outcome.kind != "pruned":
            taken.set_user_attr("error", outcome.text)
        match outcome.kind:
            case "returned":
                self.study.tell(taken, outcome.value, skip_if_finished=True)
            case "pruned":
                self.study.tell(taken, state=TrialState.PRUNED, skip_if_finished=True)
            case "failed":
                self.study.tell(taken, state=TrialState.FAIL, skip_if_finished=True)
            case "killed":
                storage.fail_and_retry(self.study, taken.number, outcome.text)
            case "interrupted" | "refused":
                storage.fail_and_retry(self.study, taken.number, outcome.text, was_killed=False)

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
