"""An Optuna sampler that starts from a known good setting and learns from whole learning curves."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import norm
from threadpoolctl import ThreadpoolController

from search.methods.curve_gp import CurveGP, Observations
from search.methods.unit_cube import Array, Conditions, UnitCube

KIND = "curve_sampler:kind"
"""Key in a trial's system attributes: how its setting was proposed."""
MUTATIONS = 2
"""Mutations of the start that are tried before the model proposes."""
UNIFORM = 2
"""Uniform trials that test whether the start is any good, before the model proposes."""
TEST_EVERY = 6
"""Proposals near the start after which another uniform trial tests it."""
TPE_SHARE = 2
"""Proposals of TPE for each of the process, where the start is not good."""
LEAD = 0.1
"""Least lead of a good start over a uniform trial, as a share of the best trial's."""
RISE = 0.25
"""Least rise of a good start's own curve, as a share of its lead over a uniform trial."""
CANDIDATES = 500
POINTS = 200
"""About the most points of learning curves that the model is given; a proposal stays fast."""
POINTS_A_CURVE = 3
TRIALS = 250
"""The most trials that the model is given."""
FITTED = 80
"""The most trials that its covariance is fitted to."""
REPLAYED = 2
"""Best settings of an earlier study that are tried after the start."""
APART = 0.3
"""Distance between an earlier study and this one; its length scale, as a setting's, is fitted."""
BLAS = ThreadpoolController()
"""A proposal's matrices are small: with a thread for each core, BLAS spends ten times the CPU time
on them, which the trainings that run beside it need."""


@dataclass(frozen=True)
class Curve:
    """What is known of a trial."""

    row: Array
    """Its setting, as a row of the unit cube."""
    epochs: Array
    """Steps that were reported, ascending."""
    best: Array
    """The best value up to each of them; higher is better."""
    kind: str
    """How it was proposed; empty if the user did."""
    running: bool
    earlier: bool = False
    """Whether it belongs to an earlier study."""

    def up_to(self, epoch: float) -> float:
        """The best value up to an epoch; -inf before the first."""
        seen = int(np.searchsorted(self.epochs, epoch, side="right"))
        return float(self.best[seen - 1]) if seen else -np.inf


class CurveSampler(BaseSampler):
    """Proposes whole settings of a conditional space, near what is known to be good.

    The start comes first, then two mutations of it and two uniform settings; later, now and then,
    another uniform one. While the start is clearly better than these (`is_good`), proposals
    maximise the expected improvement that a Gaussian process over (setting, epoch) sees, mostly
    among mutations of the best settings and of the start. Otherwise, and without a start, two are
    TPE's and the third is the process's, with half of its candidates uniform; with an earlier study
    (`learn_from`) TPE and the process take turns.

    It keeps nothing: all it knows is in the study's trials, those that were pruned, that run now or
    that others proposed among them. So it may be made anew for each trial, in any process. The same
    seed, trial number and trials give the same proposal. A trial is judged by its best report,
    and by its value once it has one. One that failed counts as bad as the worst, unless it was
    repeated. Trials outside the space are ignored. A study has one objective.

    A space that was narrowed in mid-study may leave out choices of a category. Optuna refuses
    other choices under a known name, so suggest from `recorded_space` then.
    """

    def __init__(
        self,
        space: Mapping[str, BaseDistribution],
        *,
        conditions: Conditions | None = None,
        start: Mapping[str, Any] | None = None,
        most_epochs: int | None = None,
        seed: int = 0,
    ) -> None:
        """`space` is what may be proposed; parameters that aren't in it are drawn at random.

        `conditions` has, for a parameter that applies only beside a certain value of another one,
        that parameter's name and the value. `start` is a setting known to be good: numbers beyond
        the space are clipped, and what it lacks is drawn. An earlier trial that lacks a parameter
        is taken to have had the start's. `most_epochs` is the last step of a whole training, by
        default the last that any trial has reported.
        """
        self._space = dict(space)
        self._cube = UnitCube(space, conditions or {})
        self._conditions = {k: c for k, c in (conditions or {}).items() if c[0] in self._space}
        self._start = None if start is None else self._cube.nearest(start)
        self._most_epochs = most_epochs
        self._seed = seed
        self._earlier: list[Curve] = []

    def learn_from(self, trials: Sequence[FrozenTrial], direction: StudyDirection) -> None:
        """Take an earlier study's trials as known: of the same objective, on any dataset.

        Those outside the space are ignored, as are parameters that the space lacks. Its best
        settings are tried after the start, in place of the mutations and of the first uniform
        trials. The process adds a coordinate that tells the two studies apart and whose length
        scale it fits, so an earlier study counts for as much as the two have in common. Values are
        compared after a shift (`shifted`), epochs as shares of each study's longest training.
        """
        most = _last_step(trials)
        curves = [c for c in self._curves(trials, direction, most) if len(c.epochs)]
        share = (self._most_epochs or most) / most
        self._earlier = [
            replace(c, epochs=c.epochs * share, kind="", running=False, earlier=True)
            for c in curves
        ]

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The whole space, whatever applies."""
        return recorded_space(study.get_trials(deepcopy=False), self._space)

    @BLAS.wrap(limits=1, user_api="blas")
    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A whole setting: a value for each parameter that applies beside the others."""
        self._raise_error_if_multi_objective(study)
        if not search_space:
            return {}
        rng = np.random.default_rng([self._seed, trial.number])
        trials = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        most = self._most_epochs or _last_step(trials)
        curves = self._curves(trials, study.direction, most)
        kind = self._next_kind(trials, curves)
        match kind:
            case "start":
                assert self._start is not None
                row = self._moved(self._start, rng, step=0.0)
            case "mutation":
                assert self._start is not None
                row = self._moved(self._start, rng, step=0.2)
            case "uniform":
                row = self._cube.uniform(rng, 1)[0]
            case "replay":
                row = self._moved(self._untried(curves)[0].row, rng, step=0.0)
            case "tpe":
                row = self._tpe(study, trial, search_space, rng)
            case _:
                start = self._start if kind == "near" else None
                row = self._model(curves, most, rng, start)
        study._storage.set_trial_system_attr(trial._trial_id, KIND, kind)
        return self._cube.params(row)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A random value, for a parameter that isn't in the space."""
        seeds = np.random.SeedSequence([self._seed, trial.number, crc32(param_name.encode())])
        sampler = RandomSampler(seed=int(seeds.generate_state(1)[0]))
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def _next_kind(self, trials: Sequence[FrozenTrial], curves: Sequence[Curve]) -> str:
        """How to propose the next setting."""
        kinds = [trial.system_attrs.get(KIND) for trial in trials if trial.state != TrialState.FAIL]
        first = None
        if self._start is not None:
            first = next((c for c in curves if self._same(c.row, self._start)), None)
            if first is None and not any(t.system_attrs.get(KIND) == "start" for t in trials):
                return "start"
        if self._earlier and kinds.count("replay") < REPLAYED and self._untried(curves):
            return "replay"
        if self._start is not None and not self._earlier and kinds.count("mutation") < MUTATIONS:
            return "mutation"
        uniform = 0 if self._earlier else UNIFORM
        if kinds.count("uniform") < uniform or sum(len(c.epochs) > 0 for c in curves) < 2:
            return "uniform"
        if first is not None and is_good(first, curves):
            due = uniform + kinds.count("near") // TEST_EVERY
            return "uniform" if kinds.count("uniform") < due else "near"
        # The process knows an earlier study, TPE does not.
        share = 1 if self._earlier else TPE_SHARE
        model = "near" if self._earlier else "anywhere"
        return "tpe" if kinds.count("tpe") < share * (kinds.count(model) + 1) else model

    def _same(self, row: Array, wanted: Array) -> bool:
        """Whether a row has the values of `wanted` that apply; NaN there fits any."""
        used = self._cube.applies(row[None])[0] & ~np.isnan(wanted)
        return bool(np.allclose(row[used], wanted[used], atol=1e-6))

    def _untried(self, curves: Sequence[Curve]) -> list[Curve]:
        """The curves of the earlier study whose settings this one has not tried, best first."""
        untried = [
            c for c in self._earlier if not any(self._same(own.row, c.row) for own in curves)
        ]
        return sorted(untried, key=lambda c: -c.best[-1])

    def _moved(self, row: Array, rng: np.random.Generator, step: float) -> Array:
        """A mutation of about half of a row's values; a step of 0 only fills its gaps."""
        if step == 0:
            return np.where(np.isnan(row), self._cube.uniform(rng, 1)[0], row)
        return self._cube.mutate(row[None], rng, np.array([step]), np.array([0.5]))[0]

    def _tpe(
        self,
        study: Study,
        trial: FrozenTrial,
        space: dict[str, BaseDistribution],
        rng: np.random.Generator,
    ) -> Array:
        """A proposal of TPE: the parameters that always apply jointly, then those beside them."""
        tpe = TPESampler(seed=int(rng.integers(2**31)), multivariate=True, constant_liar=True)
        common = {name: bounds for name, bounds in space.items() if name not in self._conditions}
        point = tpe.sample_relative(study, trial, common)
        by_condition: dict[tuple[str, object], dict[str, BaseDistribution]] = {}
        for name, condition in self._conditions.items():
            if name in space:
                by_condition.setdefault(condition, {})[name] = space[name]
        for (other, value), group in by_condition.items():
            if point.get(other) == value:
                point |= tpe.sample_relative(study, trial, group)
        return self._moved(self._cube.nearest(point), rng, step=0.0)

    def _model(
        self, curves: Sequence[Curve], most: float, rng: np.random.Generator, start: Array | None
    ) -> Array:
        """The candidate of most expected improvement by the Gaussian process over curves."""
        if not self._cube.free.any():
            return self._cube.uniform(rng, 1)[0]
        own = [curve for curve in curves if len(curve.epochs)]
        reported = _fewer([*shifted(self._earlier, own, self._same), *own], TRIALS)
        gp = self._fitted(reported, most, [curve for curve in curves if curve.running])
        rows = np.array([curve.row for curve in reported])
        mean, _ = gp.predict(self._coordinates(np.array([curve.row for curve in own])))

        def improvement(candidates: Array) -> Array:
            return expected_improvement(*gp.predict(self._coordinates(candidates)), mean.max())

        best = rows[np.argsort([-curve.best[-1] for curve in reported], kind="stable")[:4]]
        candidates = self._candidates(best, rng, start)
        gain = improvement(candidates)
        free = int(self._cube.free.sum())
        for _ in range(2):
            top = np.argsort(-gain, kind="stable")[:5]
            steps = 0.08 * 10 ** -rng.random(100)
            share = rng.choice([1 / free, 0.5], 100)
            near = self._cube.mutate(np.repeat(candidates[top], 20, axis=0), rng, steps, share)
            candidates = np.concatenate([candidates[top], near])
            gain = np.concatenate([gain[top], improvement(near)])
        return candidates[np.argmax(gain)]

    def _fitted(self, curves: Sequence[Curve], most: float, running: Sequence[Curve]) -> CurveGP:
        """The process, given the curves, and running trials as if they reached what is expected."""
        groups = self._cube.groups
        gp = CurveGP(np.append(groups, groups.max() + 1) if self._earlier else groups)
        some = _fewer(curves, FITTED)
        gp.fit(observations(some, self._settings(some), most), iterations=25)
        seen = observations(curves, self._settings(curves), most)
        gp.condition(seen)
        if running:
            settings = self._settings(running)
            gp.condition(with_expected(seen, settings, gp.predict(settings)[0]))
        return gp

    def _settings(self, curves: Sequence[Curve]) -> Array:
        earlier = np.array([curve.earlier for curve in curves], dtype=float)
        return self._coordinates(np.array([curve.row for curve in curves]), earlier)

    def _coordinates(self, rows: Array, earlier: Array | float = 0.0) -> Array:
        """Coordinates of settings in the process: a last one for the study, if there are two."""
        settings = self._cube.encode(rows)
        if not self._earlier:
            return settings
        return np.column_stack([settings, np.broadcast_to(APART * earlier, len(rows))])

    def _candidates(self, best: Array, rng: np.random.Generator, start: Array | None) -> Array:
        """Settings to choose from; with a start, most are mutations of the best and of it."""
        free = int(self._cube.free.sum())
        local = int(CANDIDATES * (0.8 if start is not None else 0.5))
        base = best[np.minimum(rng.geometric(0.5, local) - 1, len(best) - 1)]
        steps = 0.5 * 10 ** (-1.7 * rng.random(local))
        share = np.maximum(1 / free, rng.choice([1 / free, 2 / free, 0.3, 1.0], local))
        groups = [
            self._cube.uniform(rng, CANDIDATES - local),
            self._cube.mutate(base, rng, steps, share),
        ]
        if start is not None:
            n = CANDIDATES // 5
            steps = 0.4 * 10 ** -rng.random(n)
            share = rng.choice([1 / free, 2 / free, 0.5], n)
            groups.append(self._cube.mutate(np.repeat(start[None], n, axis=0), rng, steps, share))
        return np.concatenate(groups)

    def _curves(
        self, trials: Sequence[FrozenTrial], direction: StudyDirection, most: float
    ) -> list[Curve]:
        """What is known of each trial inside the space, as far as anything is."""
        sign = -1.0 if direction == StudyDirection.MINIMIZE else 1.0
        repeated = [_params(trial) for trial in trials if trial.state != TrialState.FAIL]
        curves, failed = [], []
        for trial in trials:
            row = self._cube.row(trial.params, self._start) if trial.params else None
            if row is None:
                continue
            epochs, best = best_so_far(trial, sign, most)
            kind = trial.system_attrs.get(KIND, "")
            curve = Curve(row, epochs, best, kind, trial.state == TrialState.RUNNING)
            if trial.state == TrialState.FAIL and trial.params not in repeated:
                failed.append(curve)
            elif trial.state != TrialState.FAIL and (len(epochs) or curve.running):
                curves.append(curve)
        worst = min((curve.best[-1] for curve in curves if len(curve.best)), default=None)
        if worst is None:
            return curves
        whole, bad = np.array([most]), np.array([worst])
        return curves + [replace(curve, epochs=whole, best=bad) for curve in failed]


def recorded_space(
    trials: Sequence[FrozenTrial], space: Mapping[str, BaseDistribution]
) -> dict[str, BaseDistribution]:
    """`space` with the choices of categories that the trials were suggested from.

    Optuna refuses other choices under a name that a study has on record. The sampler draws from
    its own choices alone, which may be some of these.
    """
    recorded = dict(space)
    for trial in trials:
        for name, bounds in trial.distributions.items():
            known = recorded.get(name)
            if isinstance(bounds, CategoricalDistribution) and isinstance(
                known, CategoricalDistribution
            ):
                recorded[name] = bounds if set(known.choices) <= set(bounds.choices) else known
    return recorded


def best_so_far(trial: FrozenTrial, sign: float, most: float) -> tuple[Array, Array]:
    """Steps of a trial's reports, and the best value up to each; `sign` makes higher better.

    A finished trial ends with its value, at `most` if it has reported nothing. What is not finite
    is left out.
    """
    reports = sorted(
        (step, sign * value)
        for step, value in trial.intermediate_values.items()
        if np.isfinite(value)
    )
    epochs = np.array([step for step, _ in reports], dtype=float)
    best = np.maximum.accumulate(np.array([value for _, value in reports], dtype=float))
    if trial.state == TrialState.COMPLETE and trial.value is not None and np.isfinite(trial.value):
        if not len(epochs):
            epochs, best = np.array([most]), np.array([0.0])
        best[-1] = sign * trial.value
    return epochs, best


def observations(curves: Sequence[Curve], settings: Array, most: float) -> Observations:
    """Some points of each curve, the last one among them, scaled to mean 0 and variance 1.

    Values further below the best than ten times the median trial are raised to there, so that a
    few diverged trainings do not make all others look alike.
    """
    n = int(np.clip(POINTS // len(curves), 1, POINTS_A_CURVE))
    last = np.array([curve.best[-1] for curve in curves])
    best, median = last.max(), np.median(last)
    least = 1e-9 + 1e-6 * abs(best)
    floor = best - 10 * max(least, best - median)
    raised = np.maximum(last, floor)
    points = [_points(len(curve.best), n) for curve in curves]
    value = np.concatenate([curve.best[p] for curve, p in zip(curves, points, strict=True)])
    epoch = np.concatenate([curve.epochs[p] for curve, p in zip(curves, points, strict=True)])
    return Observations(
        settings,
        np.repeat(np.arange(len(curves)), [len(p) for p in points]),
        np.clip(epoch / most, 0, 1),
        (np.maximum(value, floor) - raised.mean()) / max(least, raised.std()),
    )


def with_expected(seen: Observations, settings: Array, mean: Array) -> Observations:
    """`seen` and, for each of the settings, a whole training that reached `mean`."""
    n = len(mean)
    return Observations(
        np.concatenate([seen.settings, settings]),
        np.concatenate([seen.trial, len(seen.settings) + np.arange(n)]),
        np.concatenate([seen.share, np.ones(n)]),
        np.concatenate([seen.value, mean]),
    )


def expected_improvement(mean: Array, sd: Array, best: float) -> Array:
    """Expected amount by which a normal variable exceeds `best` (Jones, Schonlau & Welch 1998)."""
    z = (mean - best) / sd
    return sd * (z * norm.cdf(z) + norm.pdf(z))


def shifted(
    earlier: Sequence[Curve], own: Sequence[Curve], same: Callable[[Array, Array], bool]
) -> list[Curve]:
    """Curves of an earlier study, shifted so that both studies agree on the settings they share.

    Without such a setting the best of both agree: another dataset may be easier.
    """
    if not earlier or not own:
        return list(earlier)
    gaps = [
        one.up_to(epoch) - other.up_to(epoch)
        for one in own
        for other in earlier
        if same(one.row, other.row)
        for epoch in [min(one.epochs[-1], other.epochs[-1])]
    ]
    gaps = [gap for gap in gaps if np.isfinite(gap)]
    best = max(c.best[-1] for c in own) - max(c.best[-1] for c in earlier)
    gap = float(np.mean(gaps)) if gaps else best
    return [replace(c, best=c.best + gap) for c in earlier]


def _last_step(trials: Sequence[FrozenTrial]) -> float:
    """The last step that any of the trials has reported, at least 1."""
    return float(max((trial.last_step or 1 for trial in trials), default=1))


def _points(length: int, n: int) -> NDArray[np.int_]:
    """Indices of up to n of a curve's points, evenly spread, the last one among them."""
    n = min(n, length)
    return np.unique(np.round(np.linspace(length / n, length, n)).astype(int)) - 1


def _fewer(curves: Sequence[Curve], most: int) -> Sequence[Curve]:
    """At most so many curves: the best half of that number, and some of the others, evenly."""
    if len(curves) <= most:
        return curves
    order = np.argsort([-curve.best[-1] for curve in curves], kind="stable")
    others = np.sort(order[most // 2 :])
    kept = others[np.linspace(0, len(others) - 1, most - most // 2).astype(int)]
    return [curves[i] for i in np.sort(np.concatenate([order[: most // 2], kept]))]


def is_good(start: Curve, curves: Sequence[Curve]) -> bool:
    """Whether a start is so much better than each uniform trial that it is worth staying near it.

    They are compared at the last epoch that both have reached. The start has to be ahead, by at
    least the share `LEAD` of what the best trial is ahead by, and to have risen by at least the
    share `RISE` of its lead since its first epoch: one that has learnt nothing is ahead of
    trainings that diverged, too.
    """
    if not len(start.epochs):
        return True
    rise = start.best[-1] - start.best[0] if len(start.epochs) > 1 else np.inf
    for test in curves:
        if test.kind != "uniform" or not len(test.epochs):
            continue
        epoch = min(test.epochs[-1], start.epochs[-1])
        reached = test.up_to(epoch)
        lead = start.up_to(epoch) - reached
        best = max(curve.up_to(epoch) for curve in curves) - reached
        if lead <= 0 or lead < LEAD * best or rise < RISE * lead:
            return False
    return True


def _params(trial: FrozenTrial) -> dict[str, Any]:
    """A trial's parameters, also if it waits to be run."""
    return trial.params or trial.system_attrs.get("fixed_params", {})
