"""List the training faces whose labels a network that did not learn them doubts most.

mlflow run . -e audit                                      the newest dataset
python -m pipeline.audit --data INGEST_RUN_ID --folds 5 --epochs 20
"""

from pipeline import cli
from pipeline.settings import AuditSettings

if __name__ == "__main__":
    cli.run(AuditSettings, "pipeline.steps.checks:audit", "pipeline.steps.audit:audit")
