"""Training right after a step that damaged a model, from what it was before."""

import dataclasses
from typing import Literal

from pydantic import Field
from torch.fx import GraphModule

from workers.base import Context, Frozen
from workers.training.distillation import hinton
from workers.training.loop import train
from workers.training.losses import cross_entropy
from workers.training.settings import TrainingSettings
from workers.training.state import History


class RecoverySettings(Frozen):
    """A method that damages a model inherits these beside ``Method``."""

    recovery: Literal["none", "fine_tuning", "distillation"] = Field(
        "distillation",
        description="How accuracy is won back: not at all, by training on the labels, or by learning the "
        "answers of the model before this step.",
    )
    recovery_epochs: int = Field(
        3, ge=1, le=1000, description="Passes over the training samples to recover, after every round."
    )
    recovery_learning_rate: float = Field(
        0.01,
        gt=0,
        le=1,
        description="Peak of the cosine schedule; 0.1-0.5 times that of the original training, for AdamW at "
        "most 0.001.",
    )
    recovery_optimizer: Literal["sgd", "adamw"] = Field(
        "sgd", description="SGD with Nesterov momentum 0.9 for convolutional nets, AdamW for transformers."
    )

    @property
    def trains(self) -> bool:
        return self.recovery != "none"


def recover(
    graph: GraphModule, before: GraphModule, context: Context, settings: RecoverySettings, name: str
) -> History:
    """Train `graph` in place towards the labels or the answers of `before`.

    name: of this recovery, where a step has several; each has a checkpoint of its own, so that a killed run
    goes on with the one it was at.
    """
    scratch = context.scratch / name
    scratch.mkdir(exist_ok=True)
    loss = hinton(before) if settings.recovery == "distillation" else cross_entropy()
    training = TrainingSettings(
        epochs=settings.recovery_epochs,
        learning_rate=settings.recovery_learning_rate,
        optimizer=settings.recovery_optimizer,
    )
    return train(graph, dataclasses.replace(context, scratch=scratch), settings=training, loss=loss)
