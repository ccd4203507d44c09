"""Names and descriptions of runs: what differs, the result, the command that repeats it."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import MISSING, asdict

from pipeline.settings import Hyperparameters, Settings, recipe

ENTRY_POINTS = {
    "IngestSettings": "ingest",
    "TrainSettings": "train",
    "EvaluateSettings": "evaluate",
    "EnsembleSettings": "ensemble",
    "AuditSettings": "audit",
    "ExportSettings": "export",
    "SearchSettings": "search",
    "GridSettings": "grid",
    "CompareSettings": "compare",
    "ReportSettings": "report",
}
"""Entry point of each class of settings; the others belong to the main one."""
NOT_IN_NAMES = {
    "network",
    "data",
    "seed",
    "seeds",
    "threads",
    "resume",
    "source",
    "labels",
    "precision",
    "storage",
}
SPEAK_FOR_THEMSELVES = {"optimizer", "network"}
NAMED_FIRST = ("optimizer", "lr", "batch_size", "epochs", "width")
LONGEST_NAME = 90
LONGEST_LINE = 80
"""Characters of a command in a description; longer ones widen MLflow's page at 1440 pixels."""
TEST_LINE = "**Test accuracy "


def differing(settings: Settings) -> dict[str, object]:
    """The settings that differ from the network's recipe or, where there is none, the defaults."""
    defaults: dict[str, object] = {
        name: None if field.default is MISSING else field.default
        for name, field in settings.fields().items()
    }
    if isinstance(settings, Hyperparameters):
        network = settings.network
        defaults = asdict(recipe(type(settings), network)) | {"network": type(settings).network}
    return {name: value for name, value in asdict(settings).items() if value != defaults[name]}


def command_line(settings: Settings) -> str:
    """The `mlflow run` command with these settings, without defaults and the number of threads."""
    entry_point = ENTRY_POINTS.get(type(settings).__name__)
    given = [
        f"-P {name}={shlex.quote(str(value))}"
        for name, value in differing(settings).items()
        if name != "threads"
    ]
    return " ".join(["mlflow run .", *([f"-e {entry_point}"] if entry_point else []), *given])


def code_block(command: str) -> str:
    """Markdown of a command, continued on further lines where it is long."""
    lines = [""]
    for part in re.split(r" (?=-P )", command):
        if lines[-1] and len(lines[-1]) + len(part) >= LONGEST_LINE:
            lines.append(" ")
        lines[-1] += f" {part}" if lines[-1] else part
    return " \\\n".join(f"    {line}" for line in lines)


def words(settings: Mapping[str, object]) -> list[str]:
    """Settings as words: adam, lr 0.004, batch size 16."""
    return [
        _text(value) if name in SPEAK_FOR_THEMSELVES else f"{name.replace('_', ' ')} {_text(value)}"
        for name, value in settings.items()
    ]


def joined(*parts: str) -> str:
    """Parts of a name with dots between; those before the last are shortened to `LONGEST_NAME`."""
    *first, last = [part for part in parts if part]
    begin, end = " · ".join(first), f" · {last}" if first else last
    most = LONGEST_NAME - len(end)
    return (begin if len(begin) <= most else f"{begin[: most - 1].rstrip(' ·')}…") + end


def training_name(settings: Hyperparameters) -> str:
    """The network, what differs from its recipe, and the seed: compact · lr 0.002 · seed 1."""
    changes = {k: v for k, v in differing(settings).items() if k not in NOT_IN_NAMES}
    names = [*(name for name in NAMED_FIRST if name in changes), *changes]
    network = settings.network.rpartition(":")[2]
    several = getattr(settings, "seeds", None)
    seed = f"seeds {several}" if several else f"seed {settings.seed}"
    return joined(network, *words({name: changes[name] for name in names}), seed)


def settings_note(settings: Settings, *, repeat: str | None = None) -> str:
    """What differs from the recipe, and the command that repeats the run."""
    changes = {k: v for k, v in differing(settings).items() if k not in ("data", "network")}
    parts = []
    if isinstance(settings, Hyperparameters):
        its = f"the recipe of `{settings.network}`"
        parts.append(f"Settings: {its}, but {', '.join(words(changes))}." if changes else "")
        parts.append("" if changes else f"Settings: {its}.")
    parts.append(f"Repeat it:\n\n{code_block(repeat or command_line(settings))}")
    return paragraphs(*parts)


def paragraphs(*parts: str) -> str:
    """Markdown of several paragraphs; empty ones are left out."""
    return "\n\n".join(part for part in parts if part)


def with_test_line(note: str, line: str) -> str:
    """The description of a training with its test accuracy on top, in place of an earlier one."""
    kept = [part for part in note.split("\n\n") if not part.startswith(TEST_LINE)]
    return paragraphs(line, *kept)


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
