"""Search for better settings in an Optuna study, which the same command continues.

python -m search.optuna_study                              20 trials on the newest dataset
mlflow run . -e search -P study=wide -P space=wide -P trials=100 -P width=1 -P epochs=75
python -m search.optuna_study --storage postgresql+psycopg://optuna@db/optuna     on each machine
"""

from pipeline import cli
from search.settings import SearchSettings

if __name__ == "__main__":
    cli.run(SearchSettings, "search.studies.study:search")
