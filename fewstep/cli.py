"""The command line: `fewstep COMMAND`; every fault is one line that says what to do."""

import signal
import sys
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import fewstep
from fewstep import (
    cli_compare,
    cli_distill,
    cli_export,
    cli_house,
    cli_jobs,
    cli_keys,
    cli_look,
    cli_models,
    cli_preview,
    cli_render,
    cli_repair,
    cli_repro,
    cli_stack,
)
from jobs.errors import FewstepError

EPILOG = """
Exit status: 0 done · 1 failed, or something is not well (status, doctor) ·
2 bad input or options · 3 a server, key, device or setting is wrong or away ·
4 no such thing, or the name is taken · 130 interrupted · 143 terminated.

Variables: FEWSTEP_HOME (state of the local stack), FEWSTEP_API_URL (another API),
FEWSTEP_API_KEY (where it asks for one), FEWSTEP_REDIS_URL, FEWSTEP_S3_ENDPOINT,
FEWSTEP_S3_BUCKET, FEWSTEP_S3_ACCESS_KEY, FEWSTEP_S3_SECRET_KEY (your own servers),
FEWSTEP_CATALOG (more models).
"""


class Front(TyperGroup):
    """Ends a command that raised one of our errors with its line and its exit status."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what is not ours to explain passes through."""
        try:
            return super().invoke(ctx)
        except FewstepError as error:
            complain(str(error))
            raise typer.Exit(error.exit_code) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            complain(f"{error.filename or 'the system'}: {error.strerror or error}")
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=Front,
    name="fewstep",
    help="Renders pictures in bulk: prompts in, a training-ready dataset out.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
cli_render.add_to(app)
cli_preview.add_to(app)
cli_export.add_to(app)
cli_jobs.add_to(app)
cli_look.add_to(app)
cli_repair.add_to(app)
cli_repro.add_to(app)
cli_compare.add_to(app)
cli_stack.add_to(app)
cli_keys.add_to(app)
cli_house.add_to(app)
cli_models.add_to(app)
cli_distill.add_to(app)


def complain(text: str) -> None:
    """One line on standard error."""
    print(f"fewstep: {' '.join(text.split())}", file=sys.stderr)


def main() -> None:
    """The `fewstep` command. Told to end, it cleans up as it does after Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    app(prog_name="fewstep")


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(fewstep.__version__)
        raise typer.Exit


@app.callback()
def front(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Renders pictures in bulk: prompts in, a training-ready dataset out."""
