"""Ingest, train and evaluate in one go, as child runs of one.

mlflow run .
python -m pipeline.main --source fer2013.csv --split official --epochs 60
"""

from dataclasses import asdict, fields

from pipeline import command
from pipeline.settings import (
    EvaluateSettings,
    IngestSettings,
    MainSettings,
    Training,
    TrainSettings,
)


def main(settings: MainSettings) -> None:
    from pipeline import records, tracking
    from pipeline.evaluate import evaluate
    from pipeline.ingest import ingest
    from pipeline.train import train

    given = asdict(settings)
    training = {field.name: given[field.name] for field in fields(Training)}
    with tracking.record("main", settings) as run:
        source = IngestSettings(settings.source, settings.split, seed=settings.seed)
        dataset = ingest(source, parent=run)
        trained = train(TrainSettings(**training, data=dataset), parent=run)
        evaluated = evaluate(EvaluateSettings(trained), parent=run)
        run.log_metrics(records.headline(evaluated))
    print(records.where_to_look(evaluated))


if __name__ == "__main__":
    command.run(MainSettings, main)
