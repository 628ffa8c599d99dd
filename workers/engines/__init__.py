"""Runtimes that work in a process of their own: `child.py` is our end of the pipe, `serving.py` the other.

Each further file is what one of them does there, and the only place that imports it; its name is that of the
runtime. It has `open_file(file, threads) -> call`, where call takes (N, C, H, W) float32 and gives logits
(N, classes), and raises `Refused` (from `wire.py`) for a file that it cannot run.
"""
