"""Many trainings: the report's grid, a study that searches further, and a fair comparison.

`search.grid`, `search.optuna_study` and `search.compare` can be run; all train through `pipeline`.
"""
