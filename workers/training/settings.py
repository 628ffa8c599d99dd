"""The settings of every step that trains."""

from typing import Literal

from pydantic import Field

from workers.base import Frozen


class TrainingSettings(Frozen):
    """A method that trains inherits these beside ``Method`` and adds its own, so forms stay alike."""

    epochs: int = Field(5, ge=1, le=1000, description="Passes over the training samples.")
    learning_rate: float = Field(
        0.01,
        gt=0,
        le=1,
        description="Peak of the cosine schedule; 0.1-0.5 times that of the original training, "
        "for AdamW at most 0.001.",
    )
    batch_size: int = Field(128, ge=2, le=4096, description="Samples per update of the weights.")
    optimizer: Literal["sgd", "adamw"] = Field(
        "sgd", description="SGD with Nesterov momentum 0.9 for convolutional nets, AdamW for transformers."
    )
    weight_decay: float = Field(
        5e-4, ge=0, le=1, description="Pull of the weights to zero; norms and biases are left out."
    )
    augmentation: Literal["auto", "none", "crop", "crop_flip"] = Field(
        "auto",
        description="Random shift of the training pictures, also mirrored, or chosen by data kind.",
    )

    @property
    def trains(self) -> bool:
        return True
