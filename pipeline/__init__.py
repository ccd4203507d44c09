"""Pipeline of one training: ingest a dataset, train a network on it, evaluate the network.

Each step is an entry point, `python -m pipeline.ingest`, `.train` and `.evaluate`; `pipeline.main`
runs the three in sequence.
"""

import os
import warnings

from pipeline.quiet import hush

# No start-up messages of TensorFlow: environment.json describes the device (training/device.py). At
# another level, such as 0, all of them are shown.
if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "3":
    hush()
# oneDNN's convolutions: TensorFlow takes them by itself only on processors with AVX-512 VNNI or
# later, and without them trains at less than half the speed (DECISIONS.md).
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
# Commands print the address of their run themselves, without a password that may be in it.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# Without git, GitPython would end the import of MLflow's project code with a page of advice.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
# Keras asks JAX for the 64 bits of its counters, and gets 32, which are enough.
warnings.filterwarnings("ignore", "Explicitly requested dtype int64", UserWarning)
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
