"""Optimizers by name or `package.module:function`."""

from typing import Any

import keras

from pipeline import registry
from pipeline.settings import Hyperparameters, is_reference
from pipeline.training.schedule import Schedule


def make_optimizer(settings: Hyperparameters, steps: int) -> keras.optimizers.Optimizer:
    """The optimizer of a training of `steps` batches, with the EMA of the weights if it is on."""
    constant = settings.schedule == "constant" and not settings.warmup
    optimizer = _make(settings, settings.lr if constant else Schedule(settings, steps))
    optimizer.use_ema = settings.ema > 0
    optimizer.ema_momentum = 1 - 1 / max(1.0, settings.ema * steps)
    return optimizer


def _make(settings: Hyperparameters, lr: Any) -> keras.optimizers.Optimizer:
    name = settings.optimizer
    if is_reference(name):
        return registry.load(name, {}, "optimizer")(lr, settings)
    match name:
        case "momentum":
            return keras.optimizers.SGD(lr, momentum=settings.momentum, nesterov=True)
        case "adamw":
            return keras.optimizers.AdamW(lr, weight_decay=settings.weight_decay)
    return type(keras.optimizers.get(name))(lr)
