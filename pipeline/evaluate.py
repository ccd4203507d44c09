"""Evaluate a trained network on the test split, after model selection.

mlflow run . -e evaluate                                   the newest train run
python -m pipeline.evaluate --run models:/emotion@champion
python -m pipeline.evaluate --run GROUP_ID                 each training of a group
python -m pipeline.evaluate --run network.keras --data INGEST_RUN_ID
"""

from pipeline import cli
from pipeline.settings import EvaluateSettings

if __name__ == "__main__":
    cli.run(EvaluateSettings, "pipeline.steps.checks:evaluate", "pipeline.steps.groups:evaluate")
