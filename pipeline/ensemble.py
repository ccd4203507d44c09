"""Write one network that answers with the mean of several trained ones.

mlflow run . -e ensemble -P run=GROUP_ID                   the seeds of one `train seeds=0,1,2`
python -m pipeline.ensemble --run RUN_ID,RUN_ID,other.keras --file ensemble.keras
"""

from pipeline import cli
from pipeline.settings import EnsembleSettings

if __name__ == "__main__":
    cli.run(EnsembleSettings, "pipeline.steps.checks:ensemble", "pipeline.steps.ensemble:ensemble")
