"""Surrogates: regressors that give a learning curve for every setting of a space.

`MODELS` has them by name. `python -m benchmarks.cross_validate` tells how well each does.
"""

from collections.abc import Callable, Mapping
from functools import partial
from warnings import catch_warnings, simplefilter

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from pipeline.errors import InputError

Array = NDArray[np.float64]
Predict = Callable[[Array], Array]
"""Curves (k, epochs) of settings (k, columns)."""
Fit = Callable[[Array, Array], Predict]
"""A surrogate, from settings (n, columns), coordinates of `UnitCube.encode`, and curves."""

TREES = 60
COMPONENTS = 3
"""Principal components of the curves that boosting and the Gaussian process predict."""


def forest(settings: Array, curves: Array, least: int = 1) -> Predict:
    """Extremely randomized trees (Geurts, Ernst & Wehenkel 2006) with `least` trainings a leaf."""
    model = ExtraTreesRegressor(TREES, min_samples_leaf=least, random_state=0, n_jobs=1)
    model.fit(settings.astype(np.float32), curves)
    trees = [tree.tree_ for tree in model.estimators_]  # without the checks of `model.predict`
    shape = (-1, curves.shape[1])

    def predict(settings: Array) -> Array:
        settings = settings.astype(np.float32)
        return np.mean([tree.predict(settings).reshape(shape) for tree in trees], axis=0)

    return predict


def boosting(settings: Array, curves: Array) -> Predict:
    """Stochastic gradient boosting (Friedman 2002) of each principal component."""
    components = PCA(min(COMPONENTS, len(curves)), random_state=0)
    models = [
        GradientBoostingRegressor(
            n_estimators=300, learning_rate=0.03, max_depth=3, subsample=0.5, random_state=0
        ).fit(settings, scores)
        for scores in components.fit_transform(curves).T
    ]

    def predict(settings: Array) -> Array:
        scores = np.column_stack([model.predict(settings) for model in models])
        return np.asarray(components.inverse_transform(scores))

    return predict


def gaussian_process(settings: Array, curves: Array) -> Predict:
    """Gaussian process over the principal components, with a length scale for each coordinate."""
    components = PCA(min(COMPONENTS, len(curves)), random_state=0)
    scores = components.fit_transform(curves)
    scale = scores.std() or 1.0
    kernel = ConstantKernel(1, (0.1, 100)) * Matern(
        np.full(settings.shape[1], 3.0), (0.3, 30), nu=2.5
    ) + WhiteKernel(0.1, (1e-4, 1))
    model = GaussianProcessRegressor(kernel)
    with catch_warnings():  # of a length scale at its bound: that parameter has no effect
        simplefilter("ignore", ConvergenceWarning)
        model.fit(settings, scores / scale)

    def predict(settings: Array) -> Array:
        scores = model.predict(settings).reshape(len(settings), -1) * scale
        return np.asarray(components.inverse_transform(scores))

    return predict


def fit(name: str, settings: Array, curves: Array) -> Predict:
    """The surrogate of that name. Raises InputError if there is none."""
    if name not in MODELS:
        raise InputError(f"surrogate={name}: no such one; choose from {', '.join(MODELS)}")
    return MODELS[name](settings, curves)


MODELS: Mapping[str, Fit] = {
    "forest": forest,
    "smooth_forest": partial(forest, least=3),
    "boosting": boosting,
    "gaussian_process": gaussian_process,
}
