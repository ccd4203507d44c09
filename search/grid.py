"""Train and evaluate the report's 13 settings, and compare the results with its figures.

mlflow run . -e grid                                       all 13, at full length
python -m search.grid --epochs_scale 0.1 --max_train_faces 2000      a quick try
"""

from pipeline import cli
from search.settings import GridSettings

if __name__ == "__main__":
    cli.run(GridSettings, "search.grids.grid_runs:grid")
