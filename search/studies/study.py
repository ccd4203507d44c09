"""Study: open it, run its workers, finish it."""

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryFile

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from pipeline import secrets
from pipeline.data import VALIDATION, dataset, splitting
from pipeline.errors import InputError, reason
from pipeline.runs import addresses, outbox, process, queries, stores, tracking
from pipeline.runs.tracking import Run
from pipeline.settings import LATEST
from pipeline.steps.data import dataset_address
from search.jobs import job, placement
from search.methods.curve_sampler import recorded_space
from search.methods.samplers import make_pruner, silence_optuna
from search.methods.space import Point
from search.settings import SearchSettings
from search.studies import finalize, front, progress, proposals, storage, trial
from search.studies.deadline import Deadline
from search.studies.display import Display
from search.studies.lease import Leases
from search.studies.plan import Plan, starting_values
from search.studies.results import shown

KEPT = ("network", "width", "epochs", "max_train_faces", "objective", "cost", "seed")
"""Settings that a study keeps: with others its trials would not compare."""
WAIT = 2.0
"""Seconds between two checks whether a trial that runs elsewhere has to be repeated."""


def search(settings: SearchSettings) -> str:
    """Run a study, or continue it, to its end; returns the id of its run."""
    deadline = Deadline(settings.timeout)
    queries.use_store()
    stores.require_database(settings.storage, "storage=")
    start = starting_values(settings)
    placement.slots(settings.ray, settings.gpus, settings.workers)  # raises for missing GPUs
    Plan(settings, settings.data, start).first_points()  # raises for a space that can't be used
    require_folder(settings.checkpoints)
    with ExitStack() as opening:
        leases = Leases(settings.storage)
        opening.enter_context(leases.hold(settings.study, "open"))
        database = storage.open_storage(settings.storage)
        earlier = earlier_study(settings, database)
        study = open_study(settings, database)
        if known := study.user_attrs.get("parent"):
            queries.get(known, "study")
        tracking.discard_project_run(known)
        with tracking.record("study", settings, name=settings.study, run_id=known) as parent:
            parent.tag(study=settings.study)
            plan = Plan(settings, prepare(study, settings, parent), start, earlier)
            require_known_choices(study, plan)
            opening.close()
            with plan.slots as slots:
                slots.check()
                with Display(plan, deadline) as display:
                    workers = [
                        Worker(number, plan, database, leases, parent.id, deadline, display)
                        for number in range(settings.workers)
                    ]
                    job.run_parallel(settings.workers, Worker.run, workers)
                    finalize.finish(study, plan, parent, leases, deadline, display)
    return parent.id


def require_folder(checkpoints: str) -> None:
    """Make the folder of checkpoints. Raises InputError if it can't be written."""
    try:
        Path(checkpoints).mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=checkpoints):
            pass
    except OSError as error:
        raise InputError(f"checkpoints={checkpoints}: {reason(error)}") from None


def open_study(settings: SearchSettings, database: RDBStorage) -> optuna.Study:
    """The study by its name, made if there is none. Raises InputError if it was begun otherwise."""
    silence_optuna()
    study = optuna.create_study(
        storage=database,
        study_name=settings.study,
        direction="maximize" if settings.maximize else "minimize",
        load_if_exists=True,
    )
    require_ours(study, settings)
    begun = study.user_attrs.get("settings", {})
    for name in KEPT:
        if name in begun and begun[name] != getattr(settings, name):
            raise InputError(
                f"{name}={getattr(settings, name)}: the study {settings.study} was begun with "
                f"{name}={begun[name]}; give that, or another study="
            )
    return study


def require_ours(study: optuna.Study, settings: SearchSettings) -> None:
    """Raise InputError for a study of another program, or one that is searched the other way."""
    begun = study.user_attrs.get("settings", {})
    if "settings" not in study.user_attrs and study.get_trials(deepcopy=False):
        raise InputError(
            f"study={settings.study}: {settings.storage} has a study of this name that another "
            "program made; give another study="
        )
    expected = "maximize" if settings.maximize else "minimize"
    found = [direction.name.lower() for direction in study.directions]
    if found != [expected] and begun.get("objective", settings.objective) == settings.objective:
        raise InputError(
            f"study={settings.study}: {settings.storage} has a study of this name that is to "
            f"{' and '.join(found)}, not to {expected}; give another study="
        )


def earlier_study(settings: SearchSettings, database: RDBStorage) -> optuna.Study | None:
    """The study of `warm_start`. Raises InputError if there is none, or it can't be compared."""
    if settings.warm_start is None:
        return None
    names = optuna.get_all_study_names(database)
    if settings.warm_start not in names:
        known = ", ".join(names) or "none"
        raise InputError(
            f"warm_start={settings.warm_start}: no such study in "
            f"{secrets.masked(settings.storage)}; it has {known}"
        )
    earlier = optuna.load_study(study_name=settings.warm_start, storage=database)
    begun = earlier.user_attrs.get("settings", {})
    for name in ("network", "objective"):
        if begun.get(name) != getattr(settings, name):
            raise InputError(
                f"warm_start={settings.warm_start}: this study has {name}={begun.get(name)}; give "
                f"{name}={begun.get(name)}, or another study"
            )
    return earlier


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
    study.set_user_attr("settings", {name: asdict(settings)[name] for name in KEPT})
    study.set_user_attr("data", address)
    study.set_user_attr("digest", faces.digest)
    study.set_user_attr("has_votes", faces.votes is not None)
    study.set_user_attr("validation_faces", int((faces.split == VALIDATION).sum()))
    study.set_user_attr("parent", parent.id)
    return address


def require_known_choices(study: optuna.Study, plan: Plan) -> None:
    """Raise InputError if the space has parameters that Optuna refuses beside those of its trials.

    Optuna wants one scale and the same choices for a name. Other bounds, and fewer choices, are
    taken.
    """
    trials = study.get_trials(deepcopy=False)
    space = recorded_space(trials, plan.space.bounds)
    for known in (one.distributions for one in trials):
        for name in known.keys() & space.keys():
            if _kind(known[name]) != _kind(space[name]):
                raise InputError(
                    f"space: {name}: the study {study.study_name} was begun with {known[name]}; it "
                    "can take other bounds or fewer choices, but no new choices and no other "
                    "scale; give another study="
                )


def _kind(bounds: BaseDistribution) -> tuple[object, ...]:
    return type(bounds), getattr(bounds, "log", None), getattr(bounds, "choices", None)


_one_thread = threading.Lock()
"""Held by the thread of this process that takes a trial, so that only one asks for the lease."""


@dataclass
class Worker:
    """A thread of a study: it takes one trial after another until the study has enough."""

    number: int
    plan: Plan
    database: RDBStorage
    leases: Leases
    parent_id: str
    deadline: Deadline
    display: Display

    def __post_init__(self) -> None:
        settings = self.plan.settings
        pruner = make_pruner(settings.pruner, settings.epochs, self.plan.max_small_epochs)
        self.study = optuna.load_study(
            study_name=settings.study,
            storage=self.database,
            pruner=front.AmongCheaper(pruner) if settings.cost != "none" else pruner,
        )

    def run(self, stop: threading.Event) -> None:
        """Take trials until the study has enough, time is up, or `stop` is set.

        Raises InputError for an environment error, such as a dataset that is gone.
        """
        settings = self.plan.settings
        while not stop.is_set() and not self._time_is_up() and outbox.wait(stop.is_set):
            with self.plan.slots.one() as run:
                with (
                    _one_thread,
                    self.leases.hold(settings.study, "take", give_up=stop.is_set) as lease,
                ):
                    if lease is None or self.has_enough(trials := self.trials()):
                        return
                    taken = self.take(trials) if run else None
                if taken and run:
                    self.train(*taken, run, stop=stop)
            if taken is None:
                stop.wait(WAIT)

    def _time_is_up(self) -> bool:
        return self.deadline.is_over(reserve=finalize.seconds_needed(self.study, self.plan))

    def trials(self) -> list[FrozenTrial]:
        """The study's trials, dead ones failed. Hold the lease."""
        storage.fail_dead_trials(self.study)
        return self.study.get_trials(deepcopy=False)

    def has_enough(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether no further trial is wanted and none is running."""
        count = storage.count(trials)
        return self._wanted(trials) <= count.n_done and not count.running

    def _wanted(self, trials: Sequence[FrozenTrial]) -> int:
        """Trials of the study: those asked for, or fewer if one of its own ends has come."""
        settings = self.plan.settings
        ended = storage.ended_early(
            trials, settings.target, settings.stop_after, maximize=settings.maximize
        )
        return storage.count(trials).n_done if ended else settings.trials

    def take(self, trials: Sequence[FrozenTrial]) -> tuple[optuna.Trial, Point] | None:
        """The next trial and its point; None while running trials may fail. Hold the lease."""
        count = storage.count(trials)
        if count.n_done + count.running >= self._wanted(trials):
            return None
        if not any(t.state == TrialState.WAITING for t in trials):
            proposals.enqueue(self.study, self.plan, trials)
        taken = self.study.ask()
        taken.set_user_attr("process", process.this_process())
        taken.set_user_attr("worker", self.number)
        self.plan.space.suggest(taken)
        point = taken.params  # a repeat has those of its first time, also what varies no more
        if (name := self.plan.settings.cost) != "none":
            taken.set_user_attr(front.COST, proposals.cost(point, self.plan)[name])
        return taken, point

    def train(
        self, taken: optuna.Trial, point: Point, run: placement.Run, *, stop: threading.Event
    ) -> None:
        """Train a trial in a slot and tell the study how it ended."""
        settings = self.plan.settings
        heartbeat = storage.make_heartbeat(self.database, taken)
        training = self.plan.training(point)
        name = f"trial {taken.number}"
        try:
            outcome = trial.run(
                taken,
                training,
                self.parent_id,
                settings.epochs,
                checkpoints=Path(settings.checkpoints).absolute(),
                heartbeat=heartbeat,
                on_epoch=lambda epoch: self.display.epoch(name, epoch, training.epochs),
                stop=stop,
                run_job=run,
            )
        except UpdateFinishedTrialError:
            self.display.print(f"{name} was taken over by another worker")
            return
        finally:
            self.display.ended(name)
        self.tell(taken, outcome)
        if outcome.kind == "refused":
            raise InputError(outcome.text)
        trials = self.study.get_trials(deepcopy=False)
        self.display.print(self._line(trials, taken.number))
        progress.record_progress(self.study, self.plan, Run(self.parent_id))

    def tell(self, taken: optuna.Trial, outcome: job.Outcome) -> None:
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

    def _line(self, trials: Sequence[FrozenTrial], number: int) -> str:
        ended = trials[number]
        name = self.plan.settings.objective
        value = f"validation {name} {shown(ended.value, name)}" if ended.value is not None else ""
        error = ended.user_attrs.get("error", "")
        seconds = ended.duration.total_seconds() if ended.duration else 0
        point = " ".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in ended.params.items()
        )
        return (
            f"trial {number} {ended.state.name.lower()} {value}{error} after "
            f"{len(ended.intermediate_values)} epochs, {seconds:.0f} s: {point} "
            f"({self.display.summary(trials)})"
        )
