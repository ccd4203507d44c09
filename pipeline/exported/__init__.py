"""Networks in ONNX files, computed by ONNX Runtime; nothing here imports Keras."""
