"""Log lines: one event a line, named by its first word, with its facts as `key=value` or as JSON.

Calls look like `log.warning("lease_lost job=%s unit=%s error=%s", ...)`; docs/operations.md lists
the events, and a test compares the list with the calls.
"""

import json
import logging
import re
import time
from typing import Literal

LogForm = Literal["text", "json"]

#: An event, and the places of its facts. Whoever else logs (libraries) writes as it likes.
_PATTERN = re.compile(r"[a-z][a-z0-9_]*( [a-z][a-z0-9_]*=%(\.\d)?[sdf])*")
_PLACE = re.compile(r" ([a-z][a-z0-9_]*)=(%(?:\.\d)?[sdf])")
_PLAIN = re.compile(r"[^\s\"=]+")
#: What a line from a library is called.
OTHERS = "library_said"


def start_logging(form: LogForm) -> None:
    """Write this process's log to standard error, from INFO on."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter(form))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # These tell of every request at INFO.
    for name in ("httpx", "httpcore", "botocore", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)


class LineFormatter(logging.Formatter):
    """One line a record; a traceback is a fact of it (`traceback`), with its lines escaped."""

    def __init__(self, form: LogForm) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, without an end."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        head = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
        }
        event, facts = parts_of(record)
        if record.exc_info:
            facts["traceback"] = self.formatException(record.exc_info)
        if self._form == "json":
            return json.dumps({**head, "event": event, **facts}, ensure_ascii=False)
        words = [
            *head.values(),
            event,
            *(f"{name}={_quoted(text)}" for name, text in facts.items()),
        ]
        return " ".join(words)


def parts_of(record: logging.LogRecord) -> tuple[str, dict[str, str]]:
    """The event of a record and its facts, as text."""
    pattern = str(record.msg)
    if not is_event(pattern):
        return OTHERS, {"text": record.getMessage()}
    given = record.args if isinstance(record.args, tuple) else ()
    places = _PLACE.findall(pattern)
    pairs = zip(places, given, strict=True)
    return pattern.partition(" ")[0], {name: form % value for (name, form), value in pairs}


def is_event(pattern: str) -> bool:
    """Whether a log call's text is an event's name and the places of its facts, nothing else."""
    return _PATTERN.fullmatch(pattern) is not None


def _quoted(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
