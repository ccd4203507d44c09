"""Training: fit, checkpoints, optimizers, losses, schedules and the device."""
