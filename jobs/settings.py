"""What the operator decides: addresses, keys and limits, read from `FEWSTEP_*` variables."""

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from jobs.logs import LogForm

RendererDevice = Literal["auto", "gpu", "cpu"]
#: Names that begin with a letter or digit, so that none is "." or "..".
_FOLDERS = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9][A-Za-z0-9._-]{0,127})*$"


class Settings(BaseSettings):
    """One value per setting; `FEWSTEP_REDIS_URL` sets `redis_url`, and so on.

    Secrets are `SecretStr`: they never show in `repr`, logs or reports.
    """

    model_config = SettingsConfigDict(env_prefix="FEWSTEP_", frozen=True, extra="ignore")

    #: Where the local stack keeps its state (queue file, objects, logs).
    home: Path = Field(default_factory=lambda: Path.home() / ".fewstep")

    #: Redis by URL (`redis://:password@host:port/0`).
    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6479/0")

    #: S3-compatible storage. No endpoint means AWS's own.
    s3_endpoint: str | None = None
    s3_region: str = "us-east-1"
    s3_bucket: str = Field(default="fewstep", pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    #: Folders in the bucket, joined by slashes.
    s3_prefix: str = Field(default="datasets", max_length=400, pattern=_FOLDERS)
    s3_access_key: SecretStr | None = None
    s3_secret_key: SecretStr | None = None

    #: Where the API listens, and where its clients look for it.
    api_url: str = "http://127.0.0.1:8700"
    #: Whose jobs they are while no keys are asked for.
    tenant: str = Field(default="default", pattern="^[a-z0-9][a-z0-9-]{0,39}$")
    #: Whether every request must bear a key (`fewstep keys create`). Off is for loopback alone.
    keys: Literal["off", "required"] = "off"
    #: Where prompt files may lie that jobs name instead of sending them: places like
    #: `s3://inbox/{tenant}/`, separated by spaces. Nothing: only files that are sent.
    prompt_sources: str = ""
    #: Whether tenants may have webhooks: to public https addresses, or (for trials) to this very
    #: machine too.
    webhooks: Literal["off", "https", "loopback"] = "off"
    #: How long `/v1/images/generations` waits for its pictures before it gives up, in seconds.
    images_wait_s: float = Field(default=120.0, gt=0, le=3_600)
    #: What an hour of a device costs, in any currency: for estimates.
    device_hour_price: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    #: The key that the command line and scripts send, where one is asked for.
    api_key: SecretStr | None = None

    #: How lines of the log look: words, or one JSON object a line.
    log: LogForm = "text"

    #: A TOML file with more models, accelerators and styles (see `jobs/catalog.toml`).
    catalog: Path | None = None
    #: The operator agrees to weights whose licence forbids commercial use.
    allow_noncommercial: bool = False

    #: A claim lasts this long without news, and is renewed this often.
    lease_ms: int = Field(default=60_000, ge=1_000, le=600_000)
    renew_ms: int = Field(default=15_000, ge=100, le=200_000)

    #: Jobs that have ended, and idempotency keys, leave Redis after so many days. Never the store.
    keep_days: float = Field(default=7.0, gt=0.0, le=3650.0, allow_inf_nan=False)

    #: A renderer that finds no living scheduler for this long drains and leaves.
    orphan_ms: int = Field(default=600_000, ge=1_000)

    #: Renderers at most; each takes a whole GPU, or a CPU slot where there are none. Where several
    #: share a GPU, that many GPUs.
    max_renderers: int = Field(default=8, ge=1, le=100_000)
    #: `auto`: a GPU each where the cluster has some, else a CPU, and no more than there are. `gpu`
    #: or `cpu`: one of these each, whether they are there yet or not: an autoscaler brings nodes.
    renderer_device: RendererDevice = "auto"
    #: Renderers that may share a GPU, where those of their engine before them measured that they
    #: fit; 1: each has a whole one.
    renderers_on_a_device: int = Field(default=1, ge=1, le=16)
    #: An engine gets renderers enough to end its work in so many seconds, measured in device time;
    #: 0: as many as there are slots and shards.
    drain_s: float = Field(default=0.0, ge=0.0, le=1e7, allow_inf_nan=False)
    #: Renderers of one engine: kept although nothing waits for it, and at most.
    engine_least: int = Field(default=0, ge=0, le=100_000)
    engine_most: int = Field(default=100_000, ge=1, le=100_000)
    #: An engine without work keeps its renderers this long.
    idle_ms: int = Field(default=300_000, ge=0)
    #: CPU threads of each renderer without a GPU.
    threads: int = Field(default=1, ge=1, le=512)

    #: Whether renderers compile their nets before the first picture: `warm` by torch's compiler as
    #: it comes, `max` with kernels that compete for time. The same for all of a cluster's nodes.
    compile: Literal["off", "warm", "max"] = "off"

    #: A filter that has not scored a batch of pictures after so long is given up.
    filter_timeout_s: float = Field(default=60.0, gt=0, le=600)

    #: Where Ray is: an address, or `auto`.
    ray_address: str = "auto"
    #: Renderers may fetch weights from a hub only where this is set.
    hub_access: bool = False
    #: Where each node keeps fused engines and copies of weights, and how much of them (0: nothing).
    cache: Path = Field(default_factory=lambda: _user_cache() / "fewstep")
    cache_bytes: int = Field(default=100_000_000_000, ge=0)

    @field_validator("catalog", "cache")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        """Processes of the stack run in other folders than the one it was named in."""
        return path.absolute() if path else None

    @field_validator("prompt_sources")
    @classmethod
    def _folders(cls, places: str) -> str:
        for place in places.split():
            if not place.startswith("s3://") or not place.endswith("/") or place.count("/") < 3:
                raise ValueError(f"{place!r} is no place like s3://bucket/folder/")
        return places

    @property
    def keep_ms(self) -> int:
        """`keep_days` in milliseconds."""
        return max(1, round(self.keep_days * 86_400_000))

    @property
    def prompt_places(self) -> tuple[str, ...]:
        """The places in `prompt_sources`."""
        return tuple(self.prompt_sources.split())

    @model_validator(mode="after")
    def _renewed_in_time(self) -> Self:
        if self.renew_ms * 3 > self.lease_ms:
            raise ValueError(
                f"renew_ms {self.renew_ms} is more than a third of lease_ms {self.lease_ms}: "
                "a lease must survive two failed renewals"
            )
        return self


def _user_cache() -> Path:
    """Where programs of this user keep what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def s3_secrets(settings: Settings) -> tuple[str | None, str | None]:
    """The access key and the secret key in clear, for the S3 client alone."""
    access, secret = settings.s3_access_key, settings.s3_secret_key
    return (
        access.get_secret_value() if access else None,
        secret.get_secret_value() if secret else None,
    )
