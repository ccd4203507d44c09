"""The report as one self-contained page, and as a run."""

from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markdown_it import MarkdownIt
from markupsafe import Markup

from pipeline.data import dataset
from pipeline.data.dataset import Dataset
from pipeline.percent import interval, percent
from pipeline.reports import notes
from pipeline.runs import addresses, queries, tracking
from pipeline.settings import LATEST, ReportSettings
from search.grids.report_grid import MAX_EPOCHS, TEST_FACES
from search.report import evidence

HEAD = 5
"""Rows of the data's head."""
PIXELS = 12
"""Pixels of a row that are shown."""
BEST_TRIALS = 10
FOLDER = jinja2.FileSystemLoader(Path(__file__).parent)
TEMPLATES = jinja2.Environment(
    loader=FOLDER, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
)  # fmt: skip
TEMPLATES.filters |= {"percent": percent, "interval": lambda test: interval(test.low, test.high)}


def report(settings: ReportSettings) -> str:
    """Write the page and record it; returns the run's id. Raises InputError without a dataset."""
    address = settings.data
    if address == LATEST:
        address = queries.find(LATEST, "ingest").info.run_id
    faces = dataset.load_without_test(addresses.dataset_folder(address))
    page = render(address, faces)
    file = Path(settings.file)
    file.write_text(page)
    with tracking.record("report", settings, name=f"report · {file.name}") as run:
        run.use_dataset(faces, address, context="report")
        run.describe(
            notes.paragraphs(
                "The published report's exhibits, from what is on record: `report.html`.",
                notes.settings_note(settings),
            )
        )
        run.log_text(page, "report.html")
    print(f"report: {file.resolve()}")
    return run.id


def render(address: str, faces: Dataset) -> str:
    """The page of a dataset, of which `faces` has no test images."""
    steps = evidence.steps(faces.digest)
    return TEMPLATES.get_template("report.html.j2").render(
        now=datetime.now(),
        faces=faces,
        counts=dataset.table(faces),
        copies=dataset.copies_text(faces),
        total=sum(map(sum, faces.about["counts"].values())),
        head=_head(faces),
        distribution=evidence.picture_of(address, "classes.png"),
        samples=evidence.picture_of(address, "faces.png"),
        classes=faces.classes,
        steps=steps,
        baseline=steps.rows[0].training,
        sgd=steps.rows[1].training,
        study=(study := evidence.study(faces.digest)),
        summary=_html(study.summary) if study else "",
        trials=best_trials(study) if study else None,
        champion=evidence.champion(),
        test_faces=TEST_FACES,
        max_epochs=MAX_EPOCHS,
    )


def _head(faces: Dataset) -> list[tuple[int, int, str, str, str]]:
    """Row, class code, class, first pixels and split of the first images outside the test split."""
    names = ("train", "validation", "test")
    return [
        (
            row,
            int(faces.labels[row]),
            faces.classes[faces.labels[row]],
            " ".join(map(str, faces.images[row].ravel()[:PIXELS])),
            names[faces.split[row]],
        )
        for row in range(min(HEAD, len(faces.labels)))
    ]


def _html(markdown: str) -> Markup:
    """HTML of our own Markdown, whose title and levels fit below a heading of the page."""
    body = markdown.split("\n", 1)[1] if markdown.startswith("# ") else markdown
    rendered = MarkdownIt("commonmark", {"html": False}).enable("table").render(body)
    return Markup(rendered.replace("<h2>", "<h3>").replace("</h2>", "</h3>"))


def best_trials(study: evidence.Study) -> tuple[list[str], list[list[str]]]:
    """Column names and rows of the best trials; a parameter that never varies has no column."""
    trials = study.trials.sort_values("best_value", ascending=study.objective == "loss")
    varying = [name for name in trials if name.startswith("param_") and trials[name].nunique() > 1]
    columns = ["number", "state", "best_value", "epochs", *varying]
    is_share = study.objective != "loss"
    rows = [[_cell(name, row[name], is_share) for name in columns] for _, row in trials.iterrows()]
    names = ["trial", "state", f"validation {study.objective}", "epochs"]
    return [*names, *(name.removeprefix("param_") for name in varying)], rows[:BEST_TRIALS]


def _cell(name: str, value: Any, is_share: bool) -> str:
    """A cell of the trials' table; empty where a trial has no such value."""
    if pd.isna(value):
        return ""
    if name == "best_value":
        return percent(value) if is_share else f"{value:.4f}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
