"""Comparison of networks as one self-contained HTML page, and as text for a terminal."""

from collections.abc import Sequence
from pathlib import Path

import jinja2
import numpy as np
from numpy.typing import NDArray

from pipeline.data.classes import in_order
from pipeline.percent import interval, percent
from pipeline.reports.metrics import holm, mcnemar
from search.comparisons import exhibits
from search.comparisons.paired_tests import SIGNIFICANT, Candidate, Pair, component_test

NOT_SIGNIFICANT = "no significant difference"
NO_DIFFERENCE = ("data", "resume", "threads")
"""Params whose value does not make two networks different."""
FOLDER = jinja2.FileSystemLoader(Path(__file__).parent)
TEMPLATES = jinja2.Environment(loader=FOLDER, autoescape=True, undefined=jinja2.StrictUndefined)
TEMPLATES.filters["percent"] = percent


def render(candidates: Sequence[Candidate], pairs: Sequence[Pair], left_out: int) -> str:
    """HTML page of a comparison, without the `left_out` faces that a candidate was trained on."""
    return TEMPLATES.get_template("comparison.html.j2").render(
        candidates=candidates,
        pairs=pairs,
        faces=len(candidates[0].labels),
        notes=_notes(candidates, left_out),
        verdicts=_verdicts(candidates, pairs),
        settings=_differing_settings(candidates),
        classes=_class_rows(candidates),
        significance_level=SIGNIFICANT,
        not_significant=NOT_SIGNIFICANT,
        has_groups=any(len(candidate.members) > 1 for candidate in candidates),
        has_counts=any(pair.only for pair in pairs),
        minutes=exhibits.accuracy_by_minutes(candidates),
        disagreements=exhibits.disagreements(candidates, pairs),
    )


def as_text(candidates: Sequence[Candidate], pairs: Sequence[Pair], left_out: int) -> str:
    """Accuracies, verdicts and notes, a line each."""
    lines = []
    for candidate, settings in zip(candidates, _differing_settings(candidates), strict=True):
        accuracy, (low, high) = candidate.accuracy, candidate.interval
        shown = f"{percent(accuracy)} ({interval(low, high)})"
        lines.append(f"{candidate.name}  {shown}  {candidate.run}  {settings}")
    return "\n".join([*lines, *_verdicts(candidates, pairs), *_notes(candidates, left_out)])


def _notes(candidates: Sequence[Candidate], left_out: int) -> list[str]:
    """Sentences on faces that are left out, and on training faces that are unknown."""
    notes = []
    if left_out:
        notes.append(
            f"{left_out:,} more were left out: a network was trained on them or on copies of them."
        )
    if names := " and ".join(candidate.name for candidate in candidates if not candidate.all_known):
        notes.append(f"Not all training faces of {names} are known: some may be among these.")
    return notes


def _verdicts(candidates: Sequence[Candidate], pairs: Sequence[Pair]) -> list[str]:
    """A sentence for each pair."""
    found = []
    for pair in pairs:
        first, second = candidates[pair.first], candidates[pair.second]
        verdict = f"{first.name} and {second.name} show {NOT_SIGNIFICANT} on these faces"
        if pair.significant:
            better, worse = (first, second) if pair.better == pair.first else (second, first)
            points = 100 * (better.accuracy - worse.accuracy)
            verdict = f"{better.name} is better than {worse.name}, by {points:.1f} points"
        found.append(f"{verdict} (p = {pair.corrected:.2g}).")
    return found


def _class_rows(candidates: Sequence[Candidate]) -> list[tuple[str, int, list[tuple[float, str]]]]:
    """Name, number of faces, and each candidate's recall and verdict, by class.

    Verdict: better, worse or same, compared to the first candidate, by their test on the class.
    Holm's correction covers all classes and candidates.
    """
    labels = candidates[0].labels
    correct = [candidate.correct for candidate in candidates]
    masks = {name: labels == name for name in in_order(labels.tolist())}
    p_values = [
        _class_p(candidates[0], other, mask) for mask in masks.values() for other in candidates[1:]
    ]
    corrected = iter(holm(p_values))
    rows = []
    for name, mask in masks.items():
        recalls = [float(of_candidate[mask].mean()) for of_candidate in correct]
        cells = [(recalls[0], "same")]
        for recall in recalls[1:]:
            verdict = "better" if recall > recalls[0] else "worse"
            cells.append((recall, verdict if next(corrected) < SIGNIFICANT else "same"))
        rows.append((name, int(mask.sum()), cells))
    return rows


def _class_p(first: Candidate, second: Candidate, mask: NDArray[np.bool_]) -> float:
    """p value of the difference on the faces that the mask (N,) selects."""
    sides = [[member.correct[mask] for member in one.members] for one in (first, second)]
    if len(sides[0]) == len(sides[1]) == 1:
        return mcnemar(sides[0][0], sides[1][0])[2]
    return component_test(*sides)[2]


def _differing_settings(candidates: Sequence[Candidate]) -> list[str]:
    """Each candidate's values of the settings in which the candidates differ."""
    names = sorted({name for c in candidates for name in c.settings} - {*NO_DIFFERENCE})
    differing = [n for n in names if len({c.settings.get(n) for c in candidates}) > 1]
    return [
        ", ".join(f"{name}={c.settings[name]}" for name in differing if name in c.settings)
        or "the same settings as the others"
        for c in candidates
    ]
