"""ONNX files that `export` has logged."""

from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipeline.errors import note, reason
from pipeline.runs.queries import search, use_store

FOLDER = "onnx"


def files() -> list[tuple[Path, str]]:
    """The logged files, the newest export's first, each with a name that tells its run."""
    use_store()
    homes = [
        run.data.tags.get("files_on")
        for run in search("tags.step = 'export' and attributes.status = 'FINISHED'")
    ]
    found = []
    for home in dict.fromkeys(filter(None, homes)):
        try:
            logged = [file.path for file in MlflowClient().list_artifacts(home, FOLDER)]
            found += [
                (Path(mlflow.artifacts.download_artifacts(f"runs:/{home}/{path}")), Path(path).stem)
                for path in logged
                if path.endswith(".onnx")
            ]
        except (MlflowException, OSError) as error:  # a run or its files were deleted
            note(f"the ONNX files of run {home} can't be read ({reason(error, 100)})")
    return found
