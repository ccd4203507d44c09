"""Ingestion, training and evaluation as child runs of one run."""

from dataclasses import asdict

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


def main(settings: MainSettings) -> None:
    """Record an ingest, a train and an evaluate run as children of one."""
    given = asdict(settings)
    training = {name: given[name] for name in Hyperparameters.fields()}
    source = {name: given[name] for name in IngestSettings.fields()}
    with tracking.record("main", settings) as run:
        dataset = ingest(IngestSettings(**source), parent=run)
        trained = train(TrainSettings(**training, data=dataset), parent=run)
        evaluated = evaluate(EvaluateSettings(run=trained), parent=run)
        run.log_metrics(queries.test_accuracy(evaluated))
    print(queries.summary_text(evaluated))
