"""Write a trained network as ONNX files, which ONNX Runtime computes without Keras.

mlflow run . -e export                                     the newest train run
python -m pipeline.export --run models:/emotion@champion --tta none
python -m pipeline.export --run network.keras --data INGEST_RUN_ID
"""

from pipeline import cli
from pipeline.settings import ExportSettings

if __name__ == "__main__":
    cli.run(ExportSettings, "pipeline.steps.checks:export", "pipeline.steps.export:export")
