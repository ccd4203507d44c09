"""Train a network on a dataset and record it.

mlflow run . -e train -P lr=0.0002
python -m pipeline.train --network report --epochs 60 --batch_size 16
python -m pipeline.train --seeds 0,1,2                     a group of trainings
python -m pipeline.train --resume RUN_ID                   after Ctrl-C, or a crash
"""

from pipeline import cli
from pipeline.settings import TrainSettings

if __name__ == "__main__":
    cli.run(TrainSettings, "pipeline.steps.checks:train", "pipeline.steps.groups:train")
