"""Datasets of faces: sources, splits, batches, augmentation, and the constants they share."""

SIDE = 48
"""Height and width of a face in pixels."""
CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""FER2013's classes by their code 0-6, the default of a dataset without classes of its own. The
published report uses another order."""
SPLITS = ("train", "validation", "test")
"""Split names by their code in split.npy."""
TRAIN, VALIDATION, TEST = range(3)
UNASSIGNED = 255
"""Split code of faces whose source has no split of its own."""
