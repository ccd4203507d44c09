"""ONNX files that `export` has logged."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipeline.errors import note, reason
from pipeline.runs.queries import search, use_store

FOLDER = "onnx"
"""Artifact folder of the files, on the run of the training or, if that is not known, the export."""


def files() -> Iterator[tuple[Path, str]]:
    """The logged files, the newest export's first, each with a name that tells its run.

    Those of a server are fetched one by one, as they are asked for.
    """
    use_store()
    homes = [
        run.data.tags.get("files_on")
        for run in search("tags.step = 'export' and attributes.status = 'FINISHED'")
    ]
    for home in dict.fromkeys(filter(None, homes)):
        try:
            for file in MlflowClient().list_artifacts(home, FOLDER):
                if file.path.endswith(".onnx"):
                    local = mlflow.artifacts.download_artifacts(f"runs:/{home}/{file.path}")
                    yield Path(local), Path(local).stem
        except (MlflowException, OSError) as error:  # a run or its files were deleted
            note(f"the ONNX files of run {home} can't be read ({reason(error, 100)})")
