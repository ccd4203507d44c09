"""Ingestion, training and evaluation as child runs of one run."""

from dataclasses import asdict

from pipeline.percent import percent
from pipeline.reports import notes
from pipeline.runs import queries, tracking
from pipeline.settings import (
    EvaluateSettings,
    Hyperparameters,
    IngestSettings,
    MainSettings,
    TrainSettings,
)
from pipeline.steps.evaluate import evaluate
from pipeline.steps.ingest import ingest
from pipeline.steps.train import train


def main(settings: MainSettings) -> str:
    """Record an ingest, a train and an evaluate run as children of one, whose id is returned."""
    given = asdict(settings)
    training = {name: given[name] for name in Hyperparameters.fields()}
    source = {name: given[name] for name in IngestSettings.fields()}
    name = notes.training_name(settings)
    with tracking.record("main", settings, name=name) as run:
        run.describe(notes.settings_note(settings))
        dataset = ingest(IngestSettings(**source), parent=run)
        trained = train(TrainSettings(**training, data=dataset), parent=run)
        evaluated = evaluate(EvaluateSettings(run=trained), parent=run)
        tested = queries.test_accuracy(evaluated)
        run.log_metrics(tested)
        result = percent(tested["test/accuracy"])
        run.rename(notes.joined(name, result))
        run.describe(
            notes.paragraphs(
                f"{notes.TEST_LINE}{queries.test_text(tested)}**: see the child runs below, an "
                "ingest, a train and an evaluate run.",
                notes.settings_note(settings),
            )
        )
    print(queries.summary_text(evaluated))
    return run.id
