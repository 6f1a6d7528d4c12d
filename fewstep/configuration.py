"""Which settings hold here: the variables, and the local stack where one is up."""

from pathlib import Path

from pydantic import ValidationError

from fewstep.stack_state import StackState, load_state
from jobs.errors import BadConfiguration
from jobs.settings import Settings


def read_settings() -> Settings:
    """The `FEWSTEP_*` variables; raises BadConfiguration naming the one that is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"])
        raise BadConfiguration(
            first["msg"], where=f"FEWSTEP_{name.upper()}", remedy="correct it, or leave it out"
        ) from error


def current_settings() -> Settings:
    """The settings of the local stack that is up, or else those of the variables.

    `FEWSTEP_API_URL` outranks a local stack: whoever sets it means that API.
    """
    settings = read_settings()
    if "api_url" in settings.model_fields_set:
        return settings
    state = load_state(settings.home)
    return settings if state is None else stack_settings(state, settings.home)


def stack_settings(state: StackState, home: Path) -> Settings:
    """The settings with which the processes of a stack run."""
    given: dict[str, object] = {
        "home": home,
        "redis_url": state.redis_url,
        "s3_endpoint": state.s3_endpoint,
        "s3_region": state.s3_region,
        "s3_bucket": state.s3_bucket,
        "s3_access_key": state.s3_access_key,
        "s3_secret_key": state.s3_secret_key,
        "api_url": state.api_url,
        "ray_address": state.ray_address,
        "max_renderers": state.renderers,
    }
    return Settings.model_validate(read_settings().model_dump() | given)
