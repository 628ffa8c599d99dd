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
        description="Peak of the schedule; 0.1-0.5 times that of the original training, "
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
        description="Random shift of the training pictures (crop), also mirrored (crop_flip). auto mirrors "
        "pictures in colour alone: a mirrored digit is no digit.",
    )
    mixup: float = Field(
        0.0,
        ge=0,
        le=2,
        description="Alpha of the Beta distribution by which pairs of pictures and their labels are blended; "
        "0.2 is usual, 0 blends none. Never chosen by itself: it was shown for training of 90 to 200 epochs "
        "(Zhang et al. 2018), not for the few of a recovery.",
    )
    schedule: Literal["cosine", "one_cycle"] = Field(
        "cosine",
        description="Course of the learning rate; one_cycle rises for 30 % of the updates and lowers the "
        "momentum meanwhile, which suits short training from scratch.",
    )
    warm_up: float = Field(
        0.05,
        ge=0,
        le=0.5,
        description="Share of the updates in which the learning rate of the cosine schedule rises.",
    )
    gradient_clip: float = Field(
        5.0, ge=0, le=1000, description="Largest norm of the gradient of one update; 0 clips nothing."
    )
    patience: int = Field(
        0,
        ge=0,
        le=1000,
        description="Epochs in a row without a better validation accuracy that end the training; 0 for none.",
    )
    mixed_precision: Literal["auto", "off"] = Field(
        "auto",
        description="Compute in bfloat16 on GPUs that have it, about twice as fast; float32 elsewhere.",
    )

    @property
    def trains(self) -> bool:
        return True
