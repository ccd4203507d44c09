"""Write the published report again, from what is on record, as one page.

mlflow run . -e report                                     report.html, of the newest dataset
python -m pipeline.report --data INGEST_RUN_ID --file faces.html
"""

from pipeline import cli
from pipeline.settings import ReportSettings

if __name__ == "__main__":
    cli.run(ReportSettings, "search.report.report:report")
