"""The logged model: a Keras network in MLflow's format, served by `served_network`.

`mlflow.keras.load_model` gives the network. `mlflow.pyfunc.load_model` and `mlflow models serve`
give `served_network.ServedNetwork`, whose code is a file of the model.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.models import Model, ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.types import Schema, TensorSpec

from pipeline.data import SIDE


def log(
    network: Any,
    name: str,
    requirements: Sequence[str],
    finish: Callable[[Path], None],
    epoch: int = 0,
) -> ModelInfo:
    """Log a Keras network (N, 48, 48, 1) to the active run as the model `name`.

    `requirements` are the packages that serve it, as pip takes them. `finish` is called with the
    folder of the saved model before it is logged. The run's metrics of `epoch` become the model's.
    """
    # MLflow infers requirements by loading the model in another process, which takes 8 s.
    return Model.log(
        None, _Flavor(finish), name=name, flavor_name="keras", network=network,
        requirements=requirements, step=epoch,
    )  # fmt: skip


class _Flavor:
    """What `Model.log` takes as a flavor."""

    def __init__(self, finish: Callable[[Path], None]) -> None:
        self._finish = finish

    def save_model(
        self, path: str, mlflow_model: Model, network: Any, requirements: Sequence[str]
    ) -> None:
        inputs = Schema([TensorSpec(np.dtype(np.float32), (-1, SIDE, SIDE, 1))])
        outputs = Schema([TensorSpec(np.dtype(np.float32), (-1, *network.output_shape[1:]))])
        mlflow.keras.save_model(
            network,
            path,
            mlflow_model=mlflow_model,
            signature=ModelSignature(inputs, outputs),
            pip_requirements=list(requirements),
        )
        # MLflow converts what it is given to the signature's type, and truncates fractions; without
        # inputs in the signature the faces come to `served_network` as they are.
        mlflow_model.signature = ModelSignature(None, outputs)
        keras_flavor = mlflow_model.flavors["keras"]
        code = Path(__file__).with_name("served_network.py")  # importing it would import Keras
        (Path(path) / "code").mkdir()
        shutil.copy(code, Path(path) / "code")
        mlflow.pyfunc.add_to_model(
            mlflow_model,
            loader_module=code.stem,
            data=keras_flavor["data"],
            code="code",
            conda_env="conda.yaml",
            python_env="python_env.yaml",
        )
        mlflow_model.save(str(Path(path) / "MLmodel"))
        self._finish(Path(path))
