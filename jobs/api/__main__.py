"""`python -m jobs.api --host 127.0.0.1 --port 8700` serves the API until it is told to end."""

import argparse
import ipaddress
import sys
from collections.abc import Sequence

import uvicorn
from pydantic import ValidationError

from jobs.api.app import create_app
from jobs.errors import BadConfiguration, FewstepError
from jobs.logs import start_logging
from jobs.settings import Settings

#: Open event streams get this long when the server is told to end.
GRACE_S = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal comes; the exit status is that of the error that prevented it."""
    parser = argparse.ArgumentParser(prog="python -m jobs.api", description=__doc__)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="a loopback address; any other one takes FEWSTEP_KEYS=required",
    )
    parser.add_argument("--port", type=int, default=8700)
    chosen = parser.parse_args(arguments)
    try:
        settings = _settings()
        if settings.keys == "off":
            require_loopback(chosen.host)
        start_logging(settings.log)
        app = create_app(settings)
    except FewstepError as error:
        print(f"fewstep API: {error}", file=sys.stderr)
        return error.exit_code
    uvicorn.run(
        app,
        host=chosen.host,
        port=chosen.port,
        # Its own loggers write through ours.
        log_config=None,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    return 0


def _settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        raise BadConfiguration(first["msg"], where=f"FEWSTEP_{name}") from error


def require_loopback(host: str) -> None:
    """Raises BadConfiguration for an address that other machines could reach."""
    try:
        fits = ipaddress.ip_address(host).is_loopback
    except ValueError:
        fits = host == "localhost"
    if not fits:
        raise BadConfiguration(
            f"without keys, whoever reaches {host} could use the API",
            where="--host",
            remedy="set FEWSTEP_KEYS=required (`fewstep keys create` makes keys), "
            "or listen on 127.0.0.1",
        )


if __name__ == "__main__":
    sys.exit(main())
