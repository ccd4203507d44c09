"""Search methods: spaces, samplers and pruners, by name or as `package.module:function`.

space    (settings: SearchSettings) -> dict[str, optuna.distributions.BaseDistribution], by the
         names of a training's settings.
sampler  (seed: int, start: dict, space: Space, epochs: int) -> optuna.samplers.BaseSampler. `start`
         is the point that is tried first, `space` what is varied, and `epochs` the most epochs of a
         trial. A new sampler is created for each trial. With `warm_start`, its method
         learn_from(trials: list[FrozenTrial], direction: StudyDirection) is called with the trials
         of the earlier study.
pruner   (epochs: int, small_epochs: int) -> optuna.pruners.BasePruner, for trials of up to `epochs`
         epochs, the first `small_epochs` of which may be at a smaller image size.
"""

SPACES = ("narrow", "wide")
"""Files of search/spaces."""
SAMPLERS = {
    "curves": "search.methods.samplers:curves",
    "tpe": "search.methods.samplers:tpe",
    "random": "search.methods.samplers:random",
    "cmaes": "search.methods.samplers:cmaes",
}
PRUNERS = {
    "halving": "search.methods.samplers:halving",
    "median": "search.methods.samplers:median",
    "none": "search.methods.samplers:none",
}
