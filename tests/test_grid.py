"""Tests of the report's grid: recorded once, and compared with the report."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from pipeline.errors import InputError
from pipeline.runs import queries
from search.grids import grid_runs, report_grid
from search.settings import GridSettings


def test_the_grid_is_the_reports_own() -> None:
    assert len(report_grid.REPORT) == 13
    first, sgd = report_grid.REPORT[:2]
    assert (first.epochs, first.batch_size, first.lr, first.optimizer) == (30, 64, 1e-4, "adam")
    assert (sgd.optimizer, sgd.accuracy) == ("sgd", 0.335)
    assert [row.lr for row in report_grid.REPORT if row.stale] == [2e-4, 9e-4, 2e-3, 2.1e-3, 2.5e-3]


def test_rows_are_numbers_of_the_grids_rows() -> None:
    chosen = GridSettings(rows="2, 13")
    assert [number for number in range(1, 14) if chosen.trains(number)] == [2, 13]
    for wrong in ("", "0", "14", "1,,2", "baseline"):
        with pytest.raises(InputError, match="rows.*all, or numbers from 1 to 13"):
            GridSettings(rows=wrong)


@pytest.mark.slow
def test_the_grid_sets_our_figures_beside_the_reports_and_trains_nothing_twice(
    data: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = GridSettings(data=data, width=0.05, epochs_scale=0.02, max_train_faces=60, workers=2)
    rows = report_grid.REPORT
    monkeypatch.setattr(grid_runs, "REPORT", rows[:1])
    first = grid_runs.grid(settings)
    assert "adam, 30 epochs, batch 64, lr 0.0001" in capsys.readouterr().out

    client = MlflowClient()
    folder = Path(client.download_artifacts(first, ""))
    assert (folder / "report_vs_measured.png").exists()
    table = pd.read_csv(folder / "report_vs_measured.csv")
    assert table["report"].tolist() == [0.569]
    assert table["report_low"][0] < 0.569 < table["report_high"][0]
    assert (table["measured_low"] <= table["measured"]).all()
    assert (table["measured"] <= table["measured_high"]).all()
    for run_id in [*table["train_run"], *table["evaluate_run"]]:
        assert client.get_run(run_id).data.tags["mlflow.parentRunId"] == first

    assert (table["minutes"] > 0).all()

    # One more row that is not asked for: nothing is trained.
    hopeless = replace(rows[0], optimizer="sgd", lr=1e30)  # its loss is not finite
    monkeypatch.setattr(grid_runs, "REPORT", (rows[0], hopeless))
    partial = grid_runs.grid(replace(settings, rows="1"))
    shown = pd.read_csv(Path(client.download_artifacts(partial, "report_vs_measured.csv")))
    assert shown["measured"].isna().tolist() == [False, True]
    assert not queries.search(f"tags.mlflow.parentRunId = '{partial}'")

    # Only that one is trained. It fails, and the table is whole without it.
    second = grid_runs.grid(settings)
    again = pd.read_csv(Path(client.download_artifacts(second, "report_vs_measured.csv")))
    assert again["measured"].isna().tolist() == [False, True]
    for run in ("train_run", "evaluate_run"):
        assert again[run].tolist()[:1] == table[run].tolist()
    [trained] = queries.search(f"tags.mlflow.parentRunId = '{second}'")
    assert (trained.data.tags["step"], trained.info.status) == ("train", "FAILED")
