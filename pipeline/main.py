"""Ingest, train and evaluate in sequence, as child runs of one run.

mlflow run .
python -m pipeline.main --source fer2013.csv --split official --epochs 60
"""

from pipeline import cli
from pipeline.settings import MainSettings

if __name__ == "__main__":
    cli.run(MainSettings, "pipeline.steps.checks:main", "pipeline.steps.main:main")
