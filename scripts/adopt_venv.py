"""Give MLflow the environment that runs this as the project's, so that it builds no other.

`mlflow run .` without --env-manager looks in MLFLOW_ENV_ROOT for a folder that it names by what
python_env.yaml says, and builds it, with pyenv and in minutes, only if it is not there. Here that
root becomes a folder of the virtual environment, where such a folder leads back to the same
environment. MLflow's own progress messages are left out, too. Both hold for the commands of this
environment alone, and go with it. `make install` runs this.
"""

import sys
import sysconfig
from pathlib import Path

from mlflow.utils.environment import _PythonEnv
from mlflow.utils.virtualenv import _get_virtualenv_name

PROJECT = Path(__file__).resolve().parent.parent
AT_START = "; ".join(
    [
        "import os, sys",
        "os.environ.setdefault('MLFLOW_ENV_ROOT', os.path.join(sys.prefix, 'mlflow'))",
        "os.environ.setdefault('MLFLOW_LOGGING_LEVEL', 'WARNING')",
    ]
)
"""What Python does at its start here: a line of a .pth file that begins with import is code."""


def adopt() -> None:
    environment = Path(sys.prefix)
    name = _get_virtualenv_name(_PythonEnv.from_yaml(PROJECT / "python_env.yaml"), PROJECT)
    folder = environment / "mlflow" / name
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "bin").exists():
        (folder / "bin").symlink_to(environment / "bin", target_is_directory=True)
    Path(sysconfig.get_path("purelib"), "emotion_search.pth").write_text(AT_START)


if __name__ == "__main__":
    adopt()
