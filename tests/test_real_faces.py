"""Tests with FER2013 itself; skipped if its files are not there."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.data import dataset
from pipeline.runs import addresses
from pipeline.settings import IngestSettings
from pipeline.steps.ingest import ingest
from tests.commands import ROOT

UNPACK = ROOT.parent / "shared" / "fer2013" / "unpack.py"


@pytest.mark.slow
@pytest.mark.skipif(not UNPACK.exists(), reason="the real faces are not here")
def test_fer2013_is_ingested_with_its_known_counts(store: Path) -> None:
    csv = store / "fer2013.csv"
    subprocess.run([sys.executable, str(UNPACK), "csv", str(csv)], check=True)
    run_id = ingest(IngestSettings(source=str(csv), split="official"))
    about = dataset.load(addresses.dataset_folder(run_id)).about
    assert about["source_counts"]["Training"] == [3995, 436, 4097, 7215, 4830, 3171, 4965]
    assert about["source_counts"]["PublicTest"] == [467, 56, 496, 895, 653, 415, 607]
    assert about["counts"]["test"] == about["source_counts"]["PublicTest"]
    assert sum(about["counts"]["train"]) == 28_709 - 2_871
    # 7.8 % of PublicTest are copies in Training; a tenth of Training is validation here.
    assert 0.06 < about["copies"]["test_in_train"] / 3_589 < 0.078
