"""Addresses of datasets and models: folders, files, run ids and MLflow URIs."""

from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipeline import paths, secrets
from pipeline.errors import InputError, reason
from pipeline.runs.queries import find, get, local_artifacts, members, use_store
from pipeline.settings import LATEST, EnsembleSettings, EvaluateSettings, ExportSettings

LONGEST_ID = 100
FILES = (".keras", ".onnx")
"""Ends of the names of files that hold a network."""


def dataset_folder(address: str) -> Path:
    """Folder of the dataset at `address`, a folder or an ingest run's id. Raises InputError."""
    folder = paths.find(address)
    if paths.exists(folder) and folder.is_dir():
        return folder
    if "/" in address or "." in address or len(address) > LONGEST_ID:
        raise paths.missing(address, "dataset folder")
    run = find(address, "ingest")
    if local := local_artifacts(run.info.run_id):
        return local / "dataset"
    return _download(run.info.run_id)


def _download(ingest_run: str) -> Path:
    """Local copy of a server's dataset, downloaded once for all processes of this user."""
    target = paths.cached("datasets") / ingest_run
    with FileLock(f"{target}.lock"):
        if not target.exists():
            # The rename makes the download atomic.
            with TemporaryDirectory(dir=target.parent) as partial:
                uri = f"runs:/{ingest_run}/dataset"
                mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=partial)
                (Path(partial) / "dataset").rename(target)
    return target


def dataset_uri(address: str) -> str:
    """Location of the dataset at `address`: a folder, an artifact URI, or a page of a server."""
    folder = paths.find(address)
    if paths.exists(folder) and folder.is_dir():
        return str(folder.resolve())
    info = MlflowClient().get_run(address).info
    if info.artifact_uri.startswith("mlflow-artifacts:"):  # not a dataset source of MLflow
        page = f"#/experiments/{info.experiment_id}/runs/{info.run_id}/artifacts"
        return f"{secrets.without_user(mlflow.get_tracking_uri())}/{page}"
    return f"{info.artifact_uri.removeprefix('file://')}/dataset"


def dataset_of(run_id: str) -> str:
    """Address of the dataset of a train run."""
    return get(run_id, "train").data.tags["dataset"]


def model_file(address: str, *, onnx: bool = False) -> tuple[Path, str | None]:
    """The .keras file at `address`, and the id of the run that trained it, if known.

    `address` is a .keras file, with `onnx` also an .onnx file, a train run's id or latest, or an
    MLflow model URI: runs:/ID/model, models:/NAME@ALIAS, …. Raises InputError if there is no such
    model.
    """
    if address.endswith(FILES if onnx else FILES[:1]):
        return paths.find_file(address), None
    if address.endswith((".h5", ".hdf5", ".pb", ".onnx", ".pt", ".weights")):
        raise InputError(f'{address}: expected a .keras file; save it by model.save("x.keras")')
    if ":/" not in address:
        address = f"runs:/{find(address, 'train').info.run_id}/model"
    use_store()
    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=address))
        run_id = mlflow.models.get_model_info(str(folder)).run_id
    except ModuleNotFoundError as error:
        raise InputError(
            f"{address}: no such model here; its kind of store needs the package {error.name}"
        ) from None
    except Exception as error:  # of MLflow, and of the library of each kind of store
        raise InputError(f"{address}: no such model ({reason(error, 150)})") from None
    files = list(folder.rglob("*.keras"))
    if not files:
        raise InputError(f"{address}: this model holds no .keras file")
    return files[0], run_id


def model_files(text: str) -> tuple[dict[str, Path], str | None]:
    """The .keras files of several networks by address, and the id of the first one's run, if known.

    `text` has addresses of `model_file` or of groups, with commas between. Raises InputError for
    fewer than two networks.
    """
    files: dict[str, Path] = {}
    trained_by = []
    for address in paths.several(text):
        for one in trainings(address):
            files[one], run = model_file(one)
            trained_by.append(run)
    if len(files) < 2:
        raise InputError(f"run={text}: expected two or more networks, with commas between")
    return files, next(filter(None, trained_by), None)


def exported_file(trained_by: str | None) -> Path | None:
    """The float32 ONNX file of a training, averaging as its own network does; None without one."""
    try:
        tags = get(trained_by, "train").data.tags if trained_by else {}
        if "onnx" not in tags:
            return None
        return Path(mlflow.artifacts.download_artifacts(f"runs:/{trained_by}/{tags['onnx']}"))
    except (InputError, MlflowException, OSError):  # a deleted run, or a file that is gone
        return None


def trainings(address: str) -> list[str]:
    """The trainings of the group with the id `address`; `address` itself if that is no group.

    Raises InputError for a group that has not finished.
    """
    if address == LATEST or ":/" in address or "." in address:  # not an id
        return [address]
    run = get(address, "train", "train_seeds")
    if run.data.tags["step"] == "train":
        return [address]
    if run.info.status != "FINISHED":
        raise InputError(
            f"group {address} has not finished (it is {run.info.status}); repeat its command"
        )
    return [member.info.run_id for member in members(address)]


def dataset_to_evaluate(
    settings: EvaluateSettings | EnsembleSettings | ExportSettings, trained_by: str | None
) -> str:
    """Address of the dataset to evaluate on: the setting `data`, or the dataset of the training."""
    if settings.data == LATEST:
        return find(LATEST, "ingest").info.run_id
    if settings.data is not None:
        return settings.data
    if trained_by is None:
        raise InputError(f"run={settings.run}: a bare file has no dataset of its own; give data=")
    return dataset_of(trained_by)
