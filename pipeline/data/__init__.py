"""Datasets of faces: sources, splits, batches and augmentation. This file holds their constants."""

SIDE = 48
"""Height and width of a face in pixels."""
CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""Class names by FER2013's label code 0-6. The report's matrices name them in another order."""
SPLITS = ("train", "validation", "test")
"""Names of the splits by their code in split.npy."""
TRAIN, VALIDATION, TEST = range(3)
UNASSIGNED = 255
"""Split code of faces whose source has no split of its own."""
