"""Find the faces in pictures and videos, and print what networks read in them.

python -m pipeline.predict                                 a drawn face of each class
python -m pipeline.predict photo.jpg folder video.mp4 --annotate annotated
python -m pipeline.predict photo.jpg --runs models/strong.keras,RUN_ID --format csv --out faces.csv
"""

from pipeline import cli
from pipeline.settings import PredictSettings

if __name__ == "__main__":
    cli.run(PredictSettings, "pipeline.steps.predict:check", "pipeline.steps.predict:predict")
