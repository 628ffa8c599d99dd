"""The one place that reads the environment."""

import hashlib
import tempfile
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every setting is a variable ``PAREDOWN_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="PAREDOWN_", extra="ignore")

    data: Path = Field(Path(".paredown"), description="Folder for files, checkpoints, decoded data and logs.")
    device: str = Field("cpu", description="Where training runs: `cpu`, `cuda`, `cuda:1` or `mps`.")
    threads: int = Field(1, ge=1, description="Threads of the runtime while a latency is taken.")
    database_url: str = Field(
        "", description="PostgreSQL or SQLite; empty: a SQLite file in the data folder."
    )
    broker_url: str = Field("", description="Redis or Valkey; empty: one of our own on a private socket.")
    web_url: str = Field(
        "",
        pattern=r"^(https?://.+)?$",
        description="Where a worker fetches files that its data folder lacks: the dashboard's address.",
    )
    host: str = Field("127.0.0.1", description="Address the dashboard listens on.")
    port: int = Field(8501, ge=0, le=65535, description="First port to try for the dashboard.")
    upload_limit_mb: int = Field(20_000, ge=1, description="Largest upload, in MiB.")
    import_seconds: int = Field(
        120, ge=10, description="Longest time that checking one uploaded model may take."
    )

    @property
    def database(self) -> str:
        """The database's URL, with psycopg 3 as the driver for PostgreSQL."""
        if not self.database_url:
            return f"sqlite:///{self.data.resolve()}/paredown.db"
        return self.database_url.replace("postgresql://", "postgresql+psycopg://", 1)

    @property
    def broker_socket(self) -> Path:
        """Of our own broker; in the temp folder, since a socket's path may have 107 bytes at most."""
        name = hashlib.sha256(str(self.data.resolve()).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"paredown-{name}" / "broker.sock"

    @property
    def broker(self) -> str:
        return self.broker_url or f"redis+socket://{self.broker_socket}"

    @property
    def artifacts(self) -> Path:
        return self.data / "artifacts"

    @property
    def fetched(self) -> Path:
        """A store of what came from the dashboard, which has it: what nobody used for long is removed."""
        return self.data / "fetched"

    @property
    def uploads(self) -> Path:
        """What is being uploaded and not whole yet."""
        return self.data / "uploads"

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    def job_log(self, job_id: str) -> Path:
        """What the processes of one job printed, tracebacks included."""
        return self.logs / f"job-{job_id}.log"
