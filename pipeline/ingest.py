"""Read faces from a source, split them, and record them as a dataset.

mlflow run . -e ingest                                     the drawn sample
mlflow run . -e ingest -P source=fer2013.csv -P split=official
python -m pipeline.ingest --source kaggle:OWNER/NAME
"""

from pipeline import cli
from pipeline.settings import IngestSettings

if __name__ == "__main__":
    cli.run(IngestSettings, "pipeline.steps.ingest:ingest")
