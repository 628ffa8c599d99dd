"""The one place that reads the environment."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every setting is a variable ``PAREDOWN_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="PAREDOWN_", extra="ignore")

    data: Path = Field(Path(".paredown"), description="Folder for checkpoints, decoded data and logs.")
    device: str = Field("cpu", description="Where training runs: `cpu`, `cuda`, `cuda:1` or `mps`.")
    threads: int = Field(1, ge=1, description="Threads of the runtime while a latency is taken.")
    import_seconds: int = Field(
        120, ge=10, description="Longest time that checking one uploaded model may take."
    )
