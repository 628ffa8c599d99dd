"""Where the time of a file goes: ONNX Runtime's own profile, matched to the model's layers, and the machine's
peaks beside it."""
