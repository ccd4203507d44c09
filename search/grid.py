"""Train and evaluate the published report's 13 configurations, beside its accuracies.

mlflow run . -e grid                                       all 13, at full length
python -m search.grid --epochs_scale 0.1 --max_train_faces 2000      a quick try
"""

from pipeline import cli
from search.settings import GridSettings

if __name__ == "__main__":
    cli.run(GridSettings, "search.grids.grid_runs:grid")
