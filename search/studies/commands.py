"""Settings as a command line, and as words."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict

from pipeline.settings import TrainSettings, recipe


def train_command(settings: TrainSettings) -> str:
    """Command line that trains with these settings, without defaults."""
    defaults = asdict(recipe(TrainSettings, settings.network)) | {
        "network": TrainSettings().network
    }
    given = [
        f"-P {name}={shlex.quote(str(value))}"
        for name in settings.fields()
        if (value := getattr(settings, name)) != defaults[name] and name != "threads"
    ]
    return " ".join(["mlflow run . -e train", *given])


def params_text(params: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {_text(value)}" for name, value in params.items())


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
