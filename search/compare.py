"""Test which of several networks is better on the same test faces.

mlflow run . -e compare -P runs=ID,ID
python -m search.compare --runs ID,ID,ID                   evaluate runs, or evaluated train runs
"""

from pipeline import cli
from search.settings import CompareSettings

if __name__ == "__main__":
    cli.run(CompareSettings, "search.comparisons.compare:compare")
