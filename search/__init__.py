"""Hyperparameter search: the report's grid, an Optuna study, and comparisons of networks.

Entry points: `search.grid`, `search.optuna_study` and `search.compare`. Trainings run through
`pipeline`.
"""

import pipeline  # noqa: F401  # before Keras: it sets what TensorFlow reads at its import
