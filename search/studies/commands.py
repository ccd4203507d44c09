"""Settings as a command line, and as words."""

from collections.abc import Mapping

from pipeline.reports.notes import command_line
from pipeline.settings import TrainSettings


def train_command(settings: TrainSettings) -> str:
    """Command line that trains with these settings, without defaults."""
    return command_line(settings)


def params_text(params: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {_text(value)}" for name, value in params.items())


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
