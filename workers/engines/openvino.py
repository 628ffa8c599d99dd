"""OpenVINO on the processor, in the numbers that the file is written in."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
from openvino import properties
from openvino.properties import hint

#: The call hands over to these and waits.
OWN_THREADS = True


def open_file(file: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    settings = {
        properties.inference_num_threads: threads,
        properties.num_streams: 1,
        hint.performance_mode: hint.PerformanceMode.LATENCY,
        # By default it goes down to bfloat16 where the processor has it: that would be another model.
        hint.inference_precision: openvino.Type.f32,
        # We pin already; on shared hosts its own pinning doubled the times.
        hint.enable_cpu_pinning: False,
    }
    compiled = openvino.Core().compile_model(file, "CPU", settings)
    request, output = compiled.create_infer_request(), compiled.outputs[0]

    def call(inputs: np.ndarray) -> np.ndarray:
        request.infer([inputs], share_inputs=True)
        return np.array(request.get_tensor(output).data)

    return call
