"""The page of a study says what its trials did, whatever they did, and needs nobody's network."""

import math
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import optuna
import pytest
from mlflow import MlflowClient
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from pipeline.runs import queries, tracking
from search.pages.charts import Scale, number, percent
from search.pages.page import PageInfo, duration, render
from search.pages.panels import front_of
from search.pages.rows import Aim, read
from search.settings import SearchSettings
from search.studies import progress
from search.studies.plan import Plan
from tests.browser import Browser

BOUNDS: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-4, 1e-1, log=True),
    "batch_size": IntDistribution(8, 128, log=True),
    "optimizer": CategoricalDistribution(["adam", "momentum"]),
    "momentum": FloatDistribution(0.5, 0.99),
    "flip": CategoricalDistribution([True, False]),
    "epochs": IntDistribution(20, 20),
}
VOID = {"meta", "link", "br", "circle", "path", "use", "line", "rect"}
IMPLIED = {"td"}
"""Elements whose end HTML lets one leave out, as the page does."""
EVIL = "<script>alert('x')</script> & \"quoted\""


def simulated(trials: int) -> optuna.Study:
    """A study with trials in every state; the better half of a curve's end decides."""
    study = optuna.create_study(direction="maximize")
    draws = np.random.default_rng(0)
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.COMPLETE, TrialState.FAIL]
    begin = datetime.now() - timedelta(minutes=trials)
    for n in range(trials):
        state = TrialState.RUNNING if n == trials - 1 else states[n % len(states)]
        lr = 10 ** draws.uniform(-4, -1)
        params: dict[str, object] = {
            "lr": lr,
            "batch_size": int(2 ** draws.uniform(3, 7)),
            "optimizer": "momentum" if n % 3 == 0 else "adam",
            "flip": bool(n % 2),
            "epochs": 20,
        }
        if params["optimizer"] == "momentum":
            params["momentum"] = draws.uniform(0.5, 0.99)
        level = 0.5 - 0.1 * abs(math.log10(lr) + 2.5)
        curve = [level * (1 - 0.8**epoch) + draws.normal(0, 0.005) for epoch in range(1, 21)]
        curve = curve[: 20 if state == TrialState.COMPLETE else 7]
        add(study, state, params, curve, begin + timedelta(seconds=30 * n), worker=n % 2)
    return study


def add(
    study: optuna.Study, state: TrialState, params: dict[str, object], curve: list[float],
    begin: datetime, worker: int = 0, error: str = "its process was killed",
) -> None:  # fmt: skip
    trial = create_trial(
        state=state,
        value=max(curve) if state == TrialState.COMPLETE else None,
        params=params,
        distributions={name: BOUNDS[name] for name in params},
        intermediate_values=dict(enumerate(curve, start=1)),
        user_attrs={"process": f"host:{worker}:1", "worker": worker}
        | ({"error": error} if state == TrialState.FAIL else {}),
    )
    trial.datetime_start = begin
    trial.datetime_complete = None if state == TrialState.RUNNING else begin + timedelta(seconds=55)
    study._storage.create_new_trial(study._study_id, template_trial=trial)


def about(**changes: object) -> PageInfo:
    given = {"title": "faces", "wanted": 40, "rungs": (7, 14), "command": "train --trial={}".format}
    return PageInfo(**given | changes)  # type: ignore[arg-type]


class Reader(HTMLParser):
    """Reads a page: its words by element, and whether each element is closed in its turn."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.codes: list[str] = []
        self.marks: list[str] = []
        self.tags: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if self.open and self.open[-1] in IMPLIED and tag in IMPLIED:
            self.open.pop()
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "code":
            self.codes.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag in ("use", "path", "rect"):
            self.marks += [value or "" for name, value in attrs if name == "data-n"]

    def handle_endtag(self, tag: str) -> None:
        if self.open[-1] in IMPLIED and tag != self.open[-1]:
            self.open.pop()
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data.strip()
        if self.open and self.open[-1] == "code":
            self.codes[-1] += data


def test_a_study_says_against_which_labels_its_figures_are() -> None:
    study, plan = simulated(5), Plan(SearchSettings(), "none", {})
    assert "labels" not in progress.page_info(study, plan, finished=False).facts
    study.set_user_attr("has_votes", True)
    facts = progress.page_info(study, plan, finished=False).facts
    assert facts["labels"] == "the votes' majority"
    hard = Plan(SearchSettings(fix="targets=hard"), "none", {})
    facts = progress.page_info(study, hard, finished=False).facts
    assert facts["labels"] == "the dataset's labels"


def test_the_page_has_every_trial_with_its_state_and_the_best_ones_command() -> None:
    study = simulated(30)
    page = render(study, about())
    read_page = Reader(page)
    head, *rows = read_page.rows
    assert head[:5] == ["trial", "state", "validation accuracy", "trained epochs", "seconds"]
    assert set(head[5:]) == {"lr", "batch_size", "optimizer", "momentum", "flip", "reason"}
    words = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
    assert [row[:2] for row in rows] == [
        [str(trial.number), words[trial.state.name]] for trial in study.trials
    ]
    best, value = study.best_trial, study.best_value
    assert read_page.codes == [f"train --trial={best.number}"]
    assert rows[best.number][2] == f"{value * 100:.1f}\N{NO-BREAK SPACE}%"
    assert f"trial {best.number}, {rows[best.number][2]}" in page
    # Every trial is drawn; the parameter that is the same in all has no axis, and is named.
    assert set(read_page.marks) == {str(trial.number) for trial in study.trials}
    assert "The same in all trials: epochs 20." in page
    # A parameter that a trial does not have leaves its cell empty.
    momentum = head.index("momentum")
    has_none = [row[momentum] == "" for row in rows]
    assert has_none == ["momentum" not in trial.params for trial in study.trials]
    assert "29 of 40 trials" in page
    assert "its process was killed" in rows[3]


@pytest.mark.parametrize(
    "states",
    [[], ["COMPLETE"], ["FAIL", "FAIL", "FAIL"], ["RUNNING"], ["PRUNED", "RUNNING"]],
)
def test_a_study_that_has_hardly_begun_has_a_page(states: list[str]) -> None:
    study = optuna.create_study(direction="maximize")
    for n, state in enumerate(states):
        curve = [] if state in ("FAIL", "RUNNING") else [0.2, 0.3]
        add(study, TrialState[state], {"lr": 0.01 * (n + 1)}, curve, datetime.now())
    page = render(study, about())
    read_page = Reader(page)
    assert len(read_page.rows) == (len(states) + 1 if states else 0)
    assert len(read_page.codes) == states.count("COMPLETE")
    assert ("No trial has begun yet" in page) == (not states)
    assert "nan" not in page.split("<style>")[0] + page.split("</style>")[1].split("<script>")[0]


def test_values_that_are_not_finite_and_waiting_trials_do_not_spoil_the_page() -> None:
    study = optuna.create_study(direction="maximize")
    add(study, TrialState.COMPLETE, {"lr": 0.01}, [0.2, 0.4], datetime.now())
    add(study, TrialState.PRUNED, {"lr": 0.02}, [math.nan, 0.3, math.inf], datetime.now())
    add(study, TrialState.FAIL, {"lr": 0.03}, [math.nan], datetime.now())
    study.enqueue_trial({"lr": 0.05})
    rows = Reader(render(study, about())).rows
    assert [row[:4] for row in rows[1:]] == [
        ["0", "finished", percent(0.4), "2"],
        ["1", "pruned", percent(0.3), "3"],
        ["2", "failed", "", "1"],
        ["3", "waiting", "", ""],
    ]
    assert [row[5] for row in rows[1:]] == ["0.01", "0.02", "0.03", "0.05"]


def test_a_pause_takes_no_time_and_no_room() -> None:
    study = optuna.create_study(direction="maximize")
    begin = datetime.now() - timedelta(hours=20)
    for n, hours in enumerate((0, 0, 12, 12)):  # two workers, and again after a night
        add(
            study,
            TrialState.COMPLETE,
            {"lr": 0.1 / (n + 1)},
            [0.3],
            begin + timedelta(hours=hours),
            n % 2,
        )
    page = render(study, about(wanted=8))
    # Four trials in twice 55 s, so four more take about as long; the cut is a quarter minute wide.
    assert "4 of 8 trials, about 2 min left" in page
    assert page.count(">paused</text>") == 1
    assert "left, at" not in render(study, about(wanted=8, finished=True))


def test_html_in_names_errors_and_values_stays_text() -> None:
    study = optuna.create_study(direction="maximize")
    evil = CategoricalDistribution([EVIL, "b"])
    for n, value in enumerate((EVIL, "b", EVIL)):
        trial = create_trial(
            state=TrialState.FAIL if n == 2 else TrialState.COMPLETE,
            value=None if n == 2 else 0.3 + 0.1 * n,
            params={EVIL: value, "lr": 0.1},
            distributions={EVIL: evil, "lr": FloatDistribution(0, 1)},
            user_attrs={"error": EVIL, "process": f"{EVIL}:1:2"},
        )
        study.add_trial(trial)
    page = render(
        study,
        about(
            title=EVIL, facts={EVIL: EVIL}, objective=EVIL, cost_name=EVIL,
            command=lambda n: EVIL, costs={0: 1.0, 1: 2.0},
        ),
    )  # fmt: skip
    read_page = Reader(page)
    assert EVIL not in page
    assert read_page.tags.count("script") == 1
    assert EVIL in read_page.rows[0]
    assert EVIL in read_page.rows[3]
    assert read_page.codes == [EVIL] * 3, "the best, and the two points of the front"


def test_a_loss_is_better_when_it_is_less_and_is_no_percentage() -> None:
    study = optuna.create_study(direction="minimize")
    for curve in ([2.0, 1.5], [1.9, 1.25], [40.0, 3.0]):
        trial = create_trial(
            state=TrialState.COMPLETE, value=min(curve), params={"lr": curve[0] / 100},
            distributions={"lr": FloatDistribution(0, 1)},
            intermediate_values=dict(enumerate(curve, start=1)),
        )  # fmt: skip
        study.add_trial(trial)
    page = render(study, about(objective="validation loss", is_share=False))
    read_page = Reader(page)
    assert read_page.codes == ["train --trial=1"]
    assert [row[2] for row in read_page.rows[1:]] == ["1.5", "1.25", "3"]
    assert "lower is better" in page


def test_the_front_holds_the_trials_that_none_beats_for_less() -> None:
    study = simulated(30)
    aim = Aim("accuracy", True, True)
    costs = {trial.number: float(trial.params["batch_size"]) for trial in study.trials}
    front = front_of(read(study.trials, aim, datetime.now()), costs, aim)
    finished = [t for t in study.trials if t.state == TrialState.COMPLETE]

    def pair(one: FrozenTrial) -> tuple[float, float]:
        return costs[one.number], -(one.value or 0.0)

    def is_beaten(one: FrozenTrial) -> bool:
        others = [pair(t) for t in finished if pair(t) != pair(one)]
        return any(cost <= pair(one)[0] and value <= pair(one)[1] for cost, value in others)

    assert [row.number for row in front] == [
        t.number for t in sorted(finished, key=lambda t: costs[t.number]) if not is_beaten(t)
    ]
    codes = Reader(render(study, about(costs=costs))).codes
    assert codes[1:] == [f"train --trial={row.number}" for row in front]


def test_a_large_study_makes_a_page_that_is_small_and_quick() -> None:
    study = simulated(200)
    render(study, about())  # the importance is known from now on
    begin = datetime.now()
    page = render(study, about())
    assert (datetime.now() - begin).total_seconds() < 2  # 0.1 s on an idle machine
    assert len(page) < 300_000
    assert "http" not in page


@pytest.mark.parametrize(
    ("low", "high", "log", "expected"),
    [
        (0.0001, 0.1, True, ["0.0001", "0.001", "0.01", "0.1"]),
        (8, 128, True, ["10", "20", "50", "100"]),
        (0.0, 0.6, False, ["0", "0.2", "0.4", "0.6"]),
        (1, 3, False, ["1", "2", "3"]),
        (0.011, 0.012, True, ["0.011", "0.0115", "0.012"]),
    ],
)
def test_ticks_are_round_numbers(low: float, high: float, log: bool, expected: list[str]) -> None:
    scale = Scale.of([low, high], margin=0.001, log=log, whole=isinstance(low, int) and not log)
    ticks = scale.ticks()
    assert [text for _, text in ticks] == expected
    places = [place for place, _ in ticks]
    assert places == sorted(places)
    assert 0 <= places[0] < places[-1] <= 1


def test_numbers_are_written_in_one_way() -> None:
    assert [number(v) for v in (0.00123, 1e-5, 64, 12345, 2.65e7)] == [
        "0.00123", "1e-5", "64", "12,345", "26.5\N{NO-BREAK SPACE}M",
    ]  # fmt: skip
    assert [duration(v) for v in (None, 43.2, 600, 11_100)] == ["", "43 s", "10 min", "3 h 05 min"]


def test_a_studys_run_shows_the_best_so_far_while_it_runs(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 1e6)  # however slow the machine
    settings = SearchSettings(epochs=20, trials=10)
    plan = Plan(settings, "none", {})
    study = optuna.create_study(direction="maximize")
    client = MlflowClient()
    queries.use_store()
    with tracking.record("study", settings) as parent:
        values = [0.3, 0.2, 0.4]
        for n, value in enumerate(values):
            add(study, TrialState.COMPLETE, {"lr": 0.01 * (n + 1)}, [value], datetime.now())
            progress.record_progress(study, plan, parent)
        logged = client.get_metric_history(parent.id, "val/best_accuracy")
        assert [(m.step, m.value) for m in logged] == [(1, 0.3), (3, 0.4)], (
            "2 was soon and no better"
        )
        note = client.get_run(parent.id).data.tags["mlflow.note.content"]
        assert "3 of 10 trials" in note
        assert f"Best so far: validation accuracy {percent(0.4)}" in note
        assert "    mlflow run . -e train -P " in note
        files = {file.path for file in client.list_artifacts(parent.id)}
        assert files - {"changes.diff"} == {"study.html", "trials.csv", "environment.json"}


def test_a_store_that_does_not_answer_ends_no_study(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = optuna.create_study(direction="maximize")
    add(study, TrialState.COMPLETE, {"lr": 0.01}, [0.3], datetime.now())
    queries.use_store()
    progress.record_progress(study, Plan(SearchSettings(), "none", {}), tracking.Run("0" * 32))
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("the page of the study could not be updated (")


@pytest.mark.slow
def test_a_browser_shows_the_page_at_any_width_without_errors_or_requests(tmp_path: Path) -> None:
    study = simulated(30)
    costs = {trial.number: 1e6 * trial.params["batch_size"] for trial in study.trials}
    file = tmp_path / "study.html"
    file.write_text(render(study, about(costs=costs, facts={"network": "compact"})))
    with Browser(tmp_path / "profile") as browser:
        for width in (1440, 390):
            browser.open(file, width)
            assert browser.value("innerWidth") == width
            assert browser.value("document.documentElement.scrollWidth") <= width
            assert {url for url in browser.requests() if url[:5] != "data:"} == {file.as_uri()}
            assert browser.value("document.querySelectorAll('.plot').length") == 10
            # A mark under the mouse is told in words, in all charts at once.
            place = browser.value(
                "(() => { const b = document.querySelector('g.complete use')"
                ".getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2] })()"
            )
            browser.hover(*place)
            assert browser.value("document.getElementById('tip').textContent").startswith("Trial ")
            assert browser.value("document.querySelectorAll('.on').length") > 5
            # A click on a column's name sorts by it, the best first at the second.
            column = "document.querySelectorAll('#trials th button')[2]"
            browser.value(f"{column}.click(); {column}.click()")
            first = browser.value("document.querySelector('#trials tbody tr').dataset.n")
            assert first == str(study.best_trial.number)
            assert browser.complaints() == []
