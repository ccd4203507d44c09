"""A comparison as one self-contained HTML page, and as text for a terminal."""

from collections.abc import Sequence
from html import escape

from pipeline.data import CLASSES
from pipeline.reports.metrics import accuracy_interval, holm, mcnemar
from search.comparisons.paired_tests import SIGNIFICANT, Candidate, Pair

UNTOLD = "can't be told apart"
LEFT_OUT = ("data", "resume", "threads")
"""Params that don't make two networks different."""
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem }
table { border-collapse: collapse; margin: .5rem 0 1.5rem }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: right;
         vertical-align: top }
th:first-child, td.text { text-align: left }
.scale { position: relative; width: 22rem; height: 1.1rem; background: #f2f2f2 }
.range { position: absolute; top: .4rem; height: .3rem; background: #8fc1e3 }
.point { position: absolute; top: .1rem; width: .3rem; height: .9rem; background: #1f6fb4 }
.better { color: #1f6fb4; font-weight: 600 } .worse { color: #b35c00; font-weight: 600 }
.same { color: #777 } small { color: #666 } h1 { font-size: 1.5rem } h2 { font-size: 1.15rem }
"""


def render(candidates: Sequence[Candidate], pairs: Sequence[Pair], left_out: int) -> str:
    """The page, as HTML. `left_out` faces more were ones that a candidate was trained on."""
    faces = len(candidates[0].predictions.labels)
    split, digest = candidates[0].split, candidates[0].digest
    sentences = "".join(f"<li>{escape(text)}</li>" for text in _sentences(candidates, pairs))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Comparison of networks</title>
<style>{STYLE}</style></head><body>
<h1>{len(candidates)} networks on the same {faces:,} {split} faces</h1>
<p>Digest {escape(digest)}. All were shown exactly the same faces, so each pair is tested face by
face. {_without(left_out)} {_unsure(candidates)}</p>
<ul>{sentences}</ul>
<h2>Accuracy</h2>
{_accuracy_table(candidates)}
<p><small>The bar is Wilson's 95 % interval: where the true accuracy may lie, for faces like these.
Intervals of two networks may overlap although the paired test below tells them apart.</small></p>
<h2>Pairs</h2>
{_pair_table(candidates, pairs)}
<p><small>McNemar's exact test looks at the faces that one network has right and the other wrong.
p is corrected for {len(pairs)} test{"s" * (len(pairs) > 1)} by Holm's method; below {SIGNIFICANT}
the two are told apart. Each network was trained once: another seed may turn the order.</small></p>
<h2>Classes</h2>
{_class_table(candidates)}
<p><small>Recall: the share of a class's faces that is recognised. In brackets, the difference from
network {candidates[0].name} in points, coloured where the paired test of that class, corrected by
Holm for all of this table, tells the two apart.</small></p>
</body></html>
"""


def as_text(candidates: Sequence[Candidate], pairs: Sequence[Pair], left_out: int) -> str:
    """Accuracies and verdicts, a line each."""
    lines = []
    for candidate in candidates:
        low, high = _interval(candidate)
        lines.append(
            f"{candidate.name}  {candidate.predictions.accuracy:.1%} "
            f"(95 % interval {low:.1%} to {high:.1%})  {candidate.run}  "
            f"{_difference(candidate, candidates)}"
        )
    notes = [note for note in (_without(left_out), _unsure(candidates)) if note]
    return "\n".join([*lines, *_sentences(candidates, pairs), *notes])


def _without(left_out: int) -> str:
    if not left_out:
        return ""
    return (
        f"{left_out:,} more were left out: one of the networks was trained on them, or on copies."
    )


def _unsure(candidates: Sequence[Candidate]) -> str:
    names = " and ".join(candidate.name for candidate in candidates if not candidate.all_known)
    return f"Not all faces that {names} learnt are known: some may be among these." if names else ""


def _sentences(candidates: Sequence[Candidate], pairs: Sequence[Pair]) -> list[str]:
    """The verdict on each pair."""
    found = []
    for pair in pairs:
        first, second = candidates[pair.first], candidates[pair.second]
        if pair.told_apart:
            if pair.only_second > pair.only_first:
                first, second = second, first
            points = 100 * (first.predictions.accuracy - second.predictions.accuracy)
            found.append(f"{first.name} is better than {second.name}, by {points:.1f} points")
        else:
            found.append(f"{first.name} and {second.name} {UNTOLD} on these faces")
        found[-1] += f" (p = {pair.corrected:.2g})."
    return found


def _accuracy_table(candidates: Sequence[Candidate]) -> str:
    intervals = [_interval(candidate) for candidate in candidates]
    left, right = min(low for low, _ in intervals), max(high for _, high in intervals)
    margin = 0.08 * (right - left)
    left, width = left - margin, right - left + 2 * margin
    rows = []
    for candidate, (low, high) in zip(candidates, intervals, strict=True):
        accuracy = candidate.predictions.accuracy
        place = [f"{100 * (value - left) / width:.1f}%" for value in (low, accuracy)]
        length = f"{100 * (high - low) / width:.1f}%"
        bar = (
            f'<div class="scale"><div class="range" style="left:{place[0]};width:{length}"></div>'
            f'<div class="point" style="left:{place[1]}"></div></div>'
        )
        rows.append(
            f'<tr><td class="text"><b>{candidate.name}</b> '
            f"{escape(_difference(candidate, candidates))}<br><small>run {candidate.run}</small>"
            f"</td><td>{accuracy:.1%}</td><td>{low:.1%} to {high:.1%}</td><td>{bar}</td></tr>"
        )
    return _table(["network", "accuracy", "95 % interval", ""], rows)


def _pair_table(candidates: Sequence[Candidate], pairs: Sequence[Pair]) -> str:
    rows = []
    for pair in pairs:
        first, second = candidates[pair.first].name, candidates[pair.second].name
        better = first if pair.only_first > pair.only_second else second
        verdict, style = (f"{better} is better", "better") if pair.told_apart else (UNTOLD, "same")
        rows.append(
            f"<tr><td class='text'>{first} and {second}</td><td>{pair.only_first}</td>"
            f"<td>{pair.only_second}</td><td>{pair.p:.2g}</td><td>{pair.corrected:.2g}</td>"
            f"<td class='text {style}'>{verdict}</td></tr>"
        )
    return _table(
        ["pair", "only the first right", "only the second right", "p", "p corrected", "verdict"],
        rows,
    )


def _class_table(candidates: Sequence[Candidate]) -> str:
    """Recall by class (rows) and network (columns), against the first network."""
    first, others = candidates[0], candidates[1:]
    labels = first.predictions.labels
    present = [name for name in CLASSES if (labels == name).any()]
    tests = {
        (name, other.name): mcnemar(
            first.predictions.right[labels == name], other.predictions.right[labels == name]
        )[2]
        for name in present
        for other in others
    }
    corrected = dict(zip(tests, holm(list(tests.values())), strict=True))
    rows = []
    for name in present:
        of_class = labels == name
        base = first.predictions.right[of_class].mean()
        cells = [f"<td class='text'>{name}</td><td>{of_class.sum():,}</td><td>{base:.1%}</td>"]
        for other in others:
            recall = other.predictions.right[of_class].mean()
            style = "same"
            if corrected[name, other.name] < SIGNIFICANT:
                style = "better" if recall > base else "worse"
            points = 100 * (recall - base)
            cells.append(f"<td>{recall:.1%} <span class='{style}'>({points:+.1f})</span></td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return _table(["class", "faces", *(candidate.name for candidate in candidates)], rows)


def _table(header: Sequence[str], rows: Sequence[str]) -> str:
    cells = "".join(f"<th>{text}</th>" for text in header)
    return f"<table><tr>{cells}</tr>{''.join(rows)}</table>"


def _interval(candidate: Candidate) -> tuple[float, float]:
    right = candidate.predictions.right
    return accuracy_interval(int(right.sum()), len(right))


def _difference(candidate: Candidate, candidates: Sequence[Candidate]) -> str:
    """The settings in which the candidates differ, as this one has them."""
    names = sorted({name for other in candidates for name in other.settings} - {*LEFT_OUT})
    differing = [n for n in names if len({other.settings.get(n) for other in candidates}) > 1]
    texts = [f"{n}={candidate.settings[n]}" for n in differing if n in candidate.settings]
    return ", ".join(texts) or "the same settings as the others"
