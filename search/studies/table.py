"""Table of the trials of a study, which becomes trials.csv."""

import optuna
import pandas as pd
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from search.studies.storage import retry_history

PARAM = "param_"
"""What the names of columns with parameters begin with."""


def trials_table(study: optuna.Study) -> pd.DataFrame:
    """Table of the trials that have ended, a row each; `best_value` is that of the best epoch."""
    best = max if study.direction == StudyDirection.MAXIMIZE else min
    ended = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    starts = [trial.datetime_start for trial in ended if trial.datetime_start]
    first = min(starts) if starts else None
    names = list(dict.fromkeys(name for trial in ended for name in trial.params))
    rows = []
    for trial in ended:
        begin = trial.datetime_start
        row = {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "best_value": best(trial.intermediate_values.values(), default=None),
            "epochs": len(trial.intermediate_values),
            "begin": (begin - first).total_seconds() if begin and first else None,
            "seconds": trial.duration.total_seconds() if trial.duration else None,
            "worker": _worker(trial),
            "repeats": ", ".join(map(str, retry_history(trial))),
            "run": trial.user_attrs.get("run"),
            "error": trial.user_attrs.get("error"),
        }
        rows.append(row | {PARAM + name: trial.params.get(name) for name in names})
    return pd.DataFrame(rows)


def _worker(trial: FrozenTrial) -> str | None:
    """Name of a trial's worker, host:pid/number."""
    attrs = trial.user_attrs
    if "process" not in attrs:
        return None
    host, pid, _ = attrs["process"].rsplit(":", 2)
    return f"{host}:{pid}/{attrs.get('worker', 0)}"
