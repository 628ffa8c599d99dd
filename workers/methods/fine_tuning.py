"""Train the model further, to win back the accuracy that earlier steps cost."""

import copy
import dataclasses
from typing import ClassVar

from pydantic import Field

from workers.base import Candidate, Context, Family, Method
from workers.errors import StepFailed
from workers.training.loop import train
from workers.training.losses import cross_entropy
from workers.training.notes import course
from workers.training.settings import TrainingSettings
from workers.training.zeros import zeros_kept


class FineTuning(TrainingSettings, Method):
    """Every weight is trained on the labels; the best epoch by validation accuracy is kept."""

    title: ClassVar[str] = "Fine-tuning"
    family: ClassVar[Family] = "fine_tuning"
    source: ClassVar[str] = (
        "SGD with Nesterov momentum (Sutskever et al. 2013) or AdamW (Loshchilov & Hutter 2019), "
        "warm-up (Goyal et al. 2017), cosine schedule (Loshchilov & Hutter 2017, equation 5) or one cycle "
        "(Smith & Topin 2017), mixup (Zhang et al. 2018)"
    )

    label_smoothing: float = Field(
        0.0, ge=0, le=0.5, description="Share of each label that is spread evenly over all classes."
    )

    def apply(self, model: Candidate, context: Context) -> Candidate:
        """Raises StepFailed when there is no graph, or when training diverges."""
        if model.graph is None:
            raise StepFailed("fine_tuning", "an ONNX file cannot be trained.", "Upload the model as a .pt2.")
        graph = copy.deepcopy(model.graph).requires_grad_(True)
        with zeros_kept(graph, model.sparse):
            history = train(graph, context, settings=self, loss=cross_entropy(self.label_smoothing))
        note = f"Fine-tuning {course(history, self, context.device)}"
        return dataclasses.replace(model, graph=graph, notes=(*model.notes, note))
