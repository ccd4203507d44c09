"""Model card: what a network learnt from, how, how well it does, and what it is not for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.data import votes
from pipeline.percent import interval, percent
from pipeline.reports.metrics import Metrics, accuracy_interval, against
from pipeline.reports.notes import paragraphs, settings_note
from pipeline.settings import TrainSettings

FILE = "model_card.md"
"""Name of the card beside the model's file."""
_FIGURES = "## How well it does"
_TARGETS = {
    "votes": "Its targets were the votes in `{}`: each class's share of a face's votes.",
    "hard": "Its targets were the dataset's labels, not the votes in `{}`.",
    "": "",
}
"""What was learnt, by what `votes.learnt` returns."""
NOT_FOR = """It must not be used to judge people: not for hiring, schooling, credit, insurance,
policing, border control or health, nor to watch people at work. A face does not show what somebody
feels. In the European Union, emotion recognition at work and in schools is prohibited (Regulation
2024/1689, article 5)."""

_PURPOSE = (
    "## What it is for",
    "Research and teaching on images like those it learnt from. Figures on other images, and for "
    "groups of people, are not known; measure them first.",
    NOT_FOR,
)


@dataclass(frozen=True)
class Facts:
    """What a card says beside its settings and figures."""

    run: str
    about: Mapping[str, Any]
    """The dataset's dataset.json."""
    training_images: int
    all_known: bool
    parameters: int
    epoch: int
    minutes: float
    device: str


def model_card(settings: TrainSettings, facts: Facts, validation: Metrics) -> str:
    """The card as Markdown, with figures on validation, the only ones known after a training."""
    classes = validation.classes
    return paragraphs(
        f"# {settings.network}, a network that reads {_in_words(len(classes))} facial expressions",
        _interface(classes, facts.parameters),
        "## What it learnt from",
        f"{facts.training_images:,} different images of `{facts.about['source']}` (split "
        f"{facts.about['policy']}, dataset digest `{facts.about['digest']}`). {_known(facts)}",
        _TARGETS[votes.learnt(facts.about, settings.targets)].format(facts.about.get("votes")),
        "## How it was trained",
        settings_note(settings),
        f"Epoch {facts.epoch} of {settings.epochs} is kept; {facts.minutes:.1f} minutes on "
        f"{facts.device}. Train run `{facts.run}`.",
        _FIGURES,
        figures(validation, "validation"),
        *_PURPOSE,
    )


def ensemble_card(
    validation: Metrics,
    accuracies: Mapping[str, float],
    training_images: int,
    parameters: int,
    *,
    all_known: bool,
) -> str:
    """The card of an ensemble as Markdown; `accuracies` are its members' on the same images."""
    classes = validation.classes
    count = f"{training_images:,} different images"
    return paragraphs(
        f"# The mean of {len(accuracies)} networks that read {_in_words(len(classes))} facial "
        "expressions",
        _interface(classes, parameters),
        "## What it learnt from",
        f"{count}, those of its members together. The file holds a hash of each, so that "
        "`evaluate` can leave copies of them out."
        if all_known
        else f"{count} are known; those of some members, or of their initial weights, are not.",
        "## Its members",
        "\n".join(
            [
                "| network | accuracy on the same validation images |",
                "|---|---|",
                *(f"| `{name}` | {percent(value)} |" for name, value in accuracies.items()),
            ]
        ),
        _FIGURES,
        figures(validation, "validation"),
        *_PURPOSE,
    )


def with_figures(card: str, evaluation: Metrics, split: str, more: str = "") -> str:
    """The card with figures on another split before those that it has, in place of earlier ones.

    `more` is a sentence after the accuracy.
    """
    head, _, rest = card.partition(_FIGURES)
    new = figures(evaluation, split, more)
    title = new.partition(split)[0] + split
    if title in rest:  # measured again: two paragraphs, the accuracy and the table
        before, _, after = rest.partition(title)
        rest = before + after.split("\n\n", 2)[2]
    return f"{head}{_FIGURES}\n\n{new}\n\n{rest.lstrip()}"


def figures(evaluation: Metrics, split: str, more: str = "") -> str:
    """Accuracy, and recall and precision by class, each with its 95 % interval, as Markdown."""
    rows = []
    for code, name in enumerate(evaluation.classes):
        right = int(evaluation.confusion[code, code])
        cells = [_share(right, int(evaluation.confusion.sum(axis=axis)[code])) for axis in (1, 0)]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    count = len(evaluation.labels)
    return paragraphs(
        f"**Accuracy on {split} {percent(evaluation.accuracy)}** "
        f"({interval(evaluation.low, evaluation.high)}, {count:,} images){against(evaluation)}. "
        f"{more}".rstrip(),
        "\n".join(["| class | recall | precision |", "|---|---|---|", *rows]),
    )


def _interface(classes: Sequence[str], parameters: int) -> str:
    return (
        f"Input: grey images of one face, (N, 48, 48, 1), grey levels 0 to 255. Output: "
        f"probabilities (N, {len(classes)}) of {', '.join(classes)}. {parameters:,} parameters."
    )


def _in_words(count: int) -> str:
    words = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return words[count - 2] if count <= len(words) + 1 else str(count)


def _share(right: int, count: int) -> str:
    if count == 0:
        return "-"
    low, high = accuracy_interval(right, count)
    return f"{percent(right / count)} ({percent(low)} to {percent(high)}), {right:,} of {count:,}"


def _known(facts: Facts) -> str:
    if facts.all_known:
        return "The file holds a hash of each, so that `evaluate` can leave copies of them out."
    return "Its initial weights were trained on images that are not known."
