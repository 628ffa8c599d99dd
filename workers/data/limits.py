"""How much a dataset may ask of this machine."""

from pydantic import Field

from workers.base import Frozen

MIB, GIB = 2**20, 2**30


class Limits(Frozen):
    """Bounds that hold before anything is decoded; tests use small ones."""

    total_bytes: int = Field(default=20 * GIB, description="All files of a dataset, uncompressed.")
    picture_bytes: int = Field(default=256 * MIB, description="One encoded picture.")
    array_bytes: int = Field(default=4 * GIB, description="One array of an .npz; it is held in memory.")
    decoded_bytes: int = Field(default=2 * GIB, description="Above this, pictures are decoded per batch.")
    pixels: int = Field(default=64_000_000, description="One picture, from its header, and after resizing.")
    free_pixels: int = Field(default=2_000_000_000, description="All pictures, whatever their files weigh.")
    pixels_per_byte: int = Field(default=200, description="Above the free pixels, on average over all files.")
    samples: int = Field(default=5_000_000, description="Labelled pictures.")
    members: int = Field(default=5_000_000, description="Files in a folder or zip, of any kind.")
    classes: int = Field(default=100_000, description="Labels count from 0 to this, exclusive.")
    ratio: int = Field(default=100, description="Uncompressed over compressed, for a whole zip.")
    free_ratio_bytes: int = Field(default=64 * MIB, description="Below this the ratio does not matter.")


DEFAULTS = Limits()
