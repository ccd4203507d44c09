"""Search methods: spaces, samplers and pruners, by name or as `package.module:function`.

space    (settings: SearchSettings) -> dict[str, optuna.distributions.BaseDistribution], by the
         names of a training's settings.
sampler  (seed: int, start: dict) -> optuna.samplers.BaseSampler; `start` is the recipe's point.
         A new one is created for each trial.
pruner   (epochs: int, small_epochs: int) -> optuna.pruners.BasePruner, for trials of up to `epochs`
         epochs, the first `small_epochs` of which may be at a smaller image size.
"""

SPACES = ("narrow", "wide")
"""Files of search/spaces."""
SAMPLERS = {
    "tpe": "search.methods.samplers:tpe",
    "random": "search.methods.samplers:random",
}
PRUNERS = {
    "halving": "search.methods.samplers:halving",
    "median": "search.methods.samplers:median",
    "none": "search.methods.samplers:none",
}
