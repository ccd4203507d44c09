"""Labels that a network which has not learnt them doubts, found by cleanlab."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.data import votes
from pipeline.data.dataset import Bytes
from pipeline.percent import percent


def table(
    rows: NDArray[np.intp],
    labels: Bytes,
    probabilities: NDArray[np.float32],
    classes: Sequence[str],
    cast: Bytes | None = None,
) -> pd.DataFrame:
    """A row a face, the most doubted label first.

    `rows` (n,) are the faces' places in the dataset, and `probabilities` (n, classes) those of a
    network that has not learnt them. The doubt is 1 minus the label's probability; the faces that
    confident learning takes for mislabelled (Northcutt et al. 2021, both of its rules) are flagged.
    Votes `cast` (n, classes), where there are any, are columns too.
    """
    from cleanlab.filter import find_label_issues  # of the extra `audit`, and slow to import
    from cleanlab.rank import get_label_quality_scores

    shares = probabilities / probabilities.sum(axis=1, keepdims=True, dtype=np.float64)
    codes, names = labels.astype(np.int64), np.array(classes)
    found = {
        "row": rows,
        "label": names[labels],
        "doubt": 1 - get_label_quality_scores(codes, shares),
        "flagged": find_label_issues(codes, shares, filter_by="both", n_jobs=1),
        "predicted": names[shares.argmax(axis=1)],
    }
    found |= {f"p_{name}": shares[:, code] for code, name in enumerate(classes)}
    if cast is not None:
        first, is_clear = votes.majority(cast)
        found["majority"] = np.where(is_clear, names[first], "")
        found |= {f"votes_{name}": cast[:, code] for code, name in enumerate(classes)}
    return pd.DataFrame(found).sort_values("doubt", ascending=False, kind="stable")


def captions(doubted: pd.DataFrame, classes: Sequence[str]) -> list[str]:
    """Text above each face of a sheet: its place, its label, the network's class, its top vote."""
    lines = []
    for _, face in doubted.iterrows():
        seen = f"{face['predicted']} {percent(face['p_' + face['predicted']], 0)}"
        text = f"{face['row']}: {face['label']}\n{seen}"
        if "majority" in doubted:
            count, top = max((int(face[f"votes_{name}"]), name) for name in classes)
            text += f"\nvotes: {top} {count}" if count else "\nno votes"
        lines.append(text)
    return lines


def text(doubted: pd.DataFrame) -> str:
    """How many labels are flagged, how often the network agrees, and what the votes say of both."""
    flagged = doubted[doubted["flagged"]]
    said = (
        f"{len(flagged):,} of {len(doubted):,} labels are flagged; the network agrees with "
        f"{percent((doubted['label'] == doubted['predicted']).mean())} of all"
    )
    if "majority" not in doubted:
        return said
    return (
        f"{said}; {_contradicted(flagged)} of the flagged labels, and {_contradicted(doubted)} "
        "of all, are not the votes' majority"
    )


def _contradicted(doubted: pd.DataFrame) -> str:
    """Share of the labels that the votes contradict, among faces with one class on top."""
    clear = doubted[doubted["majority"] != ""]
    return percent((clear["label"] != clear["majority"]).mean()) if len(clear) else "none"
