"""The published report, done again: one page from what is on record."""

import io
import re
from pathlib import Path

import pandas as pd
from mlflow import MlflowClient

from pipeline.networks import files
from pipeline.networks.build import build
from pipeline.runs import queries, tracking
from pipeline.settings import ReportSettings, TrainSettings
from search.grids.report_grid import REPORT
from search.report import evidence
from search.report.report import best_trials, report
from search.settings import SearchSettings

TRIALS = """number,state,best_value,epochs,seconds,run,param_lr,param_network
0,complete,0.451,3,2.5,a,0.0001,report
1,pruned,0.305,1,1.0,b,,report
2,complete,0.472,3,2.6,c,0.002,report
"""


def page_of(run_id: str) -> str:
    page = Path(MlflowClient().download_artifacts(run_id, "report.html")).read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', page), "the page needs nothing beside it"
    return page


def test_what_is_not_on_record_is_named_with_the_command_that_adds_it(trained: str) -> None:
    page = page_of(report(ReportSettings()))
    assert page == Path("report.html").read_text()
    for text in ("Data shape", "Data check", "Data head", "Data distribution", "sad", "120 rows"):
        assert text in page
    assert page.count("this training. <code>mlflow run . -e train -P ") == len(REPORT) - 1
    assert "this training. <code>mlflow run . -e train</code>" in page, "the baseline"
    for command in ("-P lr=0.0021", "mlflow run . -e grid", "mlflow run . -e search"):
        assert command in page
    assert page.count("is a copy of that of batch size 8, to the last digit") == 1
    assert page.count("to the last digit") == sum(setting.stale for setting in REPORT)


def test_the_layer_table_is_whole_where_there_is_no_terminal() -> None:
    network = build(TrainSettings(), precision="float32")
    rows, totals = evidence.layer_table(files.summary(network))
    assert rows[1][1:] == ["(None, 48, 48, 32)", "320"]
    assert rows[-1][1:] == ["(None, 7)", "3,591"]
    assert "5,810,183" in totals[0]


def test_the_study_its_winner_and_its_test_follow_the_manual_steps(trained: str) -> None:
    tags = MlflowClient().get_run(trained).data.tags
    with tracking.record("study", SearchSettings(study="faces")) as run:
        run.tag(dataset_digest=tags["dataset_digest"], winner=trained)
        text = "# Study faces\n\nBest <b>settings</b>\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
        run.log_text(text, "summary.md")
        run.log_text(TRIALS, "trials.csv")
    page = page_of(report(ReportSettings(file="other.html")))
    assert "a search on this dataset" not in page
    assert "<td>1</td>" in page, "Markdown has become HTML"
    assert "&lt;b&gt;settings" in page, "and nothing in it is taken for HTML"
    [header, best, second, pruned] = re.findall(
        r"<tr>(.*?)</tr>", page.split("The best trials</h3>")[1].split("</table>")[0], re.DOTALL
    )
    assert "network" not in header, "the same in all trials"
    assert "<td>2</td>" in best
    assert "47.2 %" in best
    assert "45.1 %" in second
    assert pruned.strip().endswith("<td></td>"), "an empty cell is empty"
    [evaluated] = queries.search("tags.step = 'evaluate'")
    accuracy = evaluated.data.metrics["test/accuracy"]
    assert f"<b>{100 * accuracy:.1f} %</b> on test" in page
    assert page.count('src="data:image/png;base64,') == 5, "classes, faces, curves and two of test"


def test_a_loss_is_not_shown_in_percent() -> None:
    trials = pd.read_csv(io.StringIO(TRIALS))
    _, rows = best_trials(evidence.Study("id", "faces", "loss", "", trials, None))
    assert [row[2] for row in rows] == ["0.3050", "0.4510", "0.4720"]
