"""Faces in pictures and videos: the detector, its boxes, and the crops that a network reads.

Nothing here imports TensorFlow, Keras or MLflow.
"""
