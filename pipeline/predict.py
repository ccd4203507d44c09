"""Print the predictions of networks for drawn faces, or for a picture of your own.

python -m pipeline.predict                                 models/compact.keras on drawn faces
python -m pipeline.predict --runs models/strong.keras,RUN_ID --images face.png
"""

from pipeline import cli
from pipeline.settings import PredictSettings

if __name__ == "__main__":
    cli.run(PredictSettings, "pipeline.steps.checks:predict", "pipeline.steps.predict:predict")
