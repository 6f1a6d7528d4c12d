"""Request bodies, read under a limit: one JSON object, or a multipart form with a prompt file."""

import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.message import Message
from typing import Any, BinaryIO

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from jobs.api.problems import Refused
from jobs.errors import InvalidInput, TooLarge
from jobs.sources.reading import SUFFIXES, SourceFormat, format_of

#: Bytes of a JSON body, and of an uploaded prompt file with its form.
JSON_MAX = 8_000_000
UPLOAD_MAX = 16_000_000_000
#: The `job` part of a form.
PART_MAX = 64_000
#: Fields of a form of the page: its own, and a weight for each style.
FIELDS_MAX = 200
#: Encodings of a form's texts, which are all UTF-8.
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})


@dataclass(frozen=True, slots=True)
class PromptFile:
    """An uploaded prompt file, on disk where it is large; `name` is for messages only."""

    name: str
    source: SourceFormat
    file: BinaryIO


async def read_object(request: Request, limit: int = JSON_MAX) -> dict[str, Any]:
    """The body as one JSON object.

    Raises Refused (400: no JSON; 415: another or an encoded content type), TooLarge as soon as
    `limit` bytes were passed, InvalidInput where it is no object or names a field twice.
    """
    _plain(request)
    if _media_type(request) != "application/json":
        raise _wrong_type("application/json")
    body = bytearray()
    async for chunk in _limited(request, limit):
        body += chunk
    return parse_object(bytes(body), "body")


@asynccontextmanager
async def read_form(request: Request) -> AsyncIterator[tuple[str, PromptFile]]:
    """The `job` part's text and the prompt file of a multipart form, in constant memory.

    The file is deleted on the way out. Raises as `read_object` does.
    """
    _plain(request)
    async with _form(request, UPLOAD_MAX, max_fields=1, max_part_size=PART_MAX) as form:
        yield _form_parts(form)


@asynccontextmanager
async def read_upload(request: Request, limit: int) -> AsyncIterator[tuple[str, BinaryIO]]:
    """Name and content of the `file` part of OpenAI's upload form, whose `purpose` is `batch`.

    The file is deleted on the way out. Raises as `read_object` does.
    """
    _plain(request)
    if not is_form(request):
        raise _wrong_type("multipart/form-data")
    async with _form(request, limit, max_fields=1, max_part_size=1_000) as form:
        file, purpose = form.get("file"), form.get("purpose")
        if purpose != "batch":
            raise InvalidInput("the purpose is not batch", where="purpose", remedy="send batch")
        if not isinstance(file, UploadFile):
            raise InvalidInput("the file is missing", where="file", remedy="send a part named file")
        yield printable(file.filename or "")[-200:] or "input.jsonl", file.file


@asynccontextmanager
async def read_fields(request: Request) -> AsyncIterator[FormData]:
    """The fields of a page's form, with one file at most, which is deleted on the way out.

    Raises as `read_object` does.
    """
    _plain(request)
    if not is_form(request):
        raise _wrong_type("multipart/form-data")
    async with _form(request, UPLOAD_MAX, max_fields=FIELDS_MAX, max_part_size=JSON_MAX) as form:
        yield form


def printable(text: str) -> str:
    """The text without what a terminal or a header would act on."""
    return "".join(letter for letter in text if letter.isprintable())


def is_form(request: Request) -> bool:
    """Whether the body says that it is a multipart form."""
    return _media_type(request) == "multipart/form-data"


def parse_object(text: bytes | str, where: str) -> dict[str, Any]:
    """A JSON object from text; refuses NaN, twins and depth that `json` would let through."""
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        value = json.loads(text, object_pairs_hook=_no_twins, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        detail = f"byte {error.start + 1} is not UTF-8"
        raise Refused(400, "bad_json", detail, where=where) from error
    except RecursionError as error:
        raise Refused(400, "bad_json", "the JSON is nested too deeply", where=where) from error
    except json.JSONDecodeError as error:
        detail = f"this is not JSON: {error.msg} at character {error.pos + 1}"
        raise Refused(400, "bad_json", detail, where=where, remedy="send one object") from error
    except ValueError as error:
        raise Refused(400, "bad_json", f"a number cannot be read: {error}", where=where) from error
    if not isinstance(value, dict):
        raise InvalidInput("this is not a JSON object", where=where)
    return value


def checked_source(name: str, where: str) -> SourceFormat:
    """What kind of prompt file it is by its name; raises InvalidInput for another one."""
    source = format_of(name)
    if source is None:
        raise InvalidInput(
            f"a prompt file named {name[-40:]!r} is of no known kind",
            where=where,
            remedy=f"name it {', '.join(SUFFIXES)}",
        )
    return source


def _plain(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise Refused(
            415,
            "unsupported_media_type",
            "an encoded body is not read",
            where="Content-Encoding",
            remedy="send it as it is",
        )


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _wrong_type(wanted: str) -> Refused:
    return Refused(
        415,
        "unsupported_media_type",
        "the body is of another type than this route reads",
        where="Content-Type",
        remedy=f"send {wanted}",
    )


async def _limited(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    seen = 0
    async for chunk in request.stream():
        seen += len(chunk)
        # Counted, because a chunked body declares no length and a declared one may lie.
        if seen > limit:
            raise _too_large(limit)
        yield chunk


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"the body is larger than {limit} bytes",
        where="body",
        remedy="send the prompts as a file in a multipart form, or in several jobs",
    )


@asynccontextmanager
async def _form(
    request: Request, limit: int, *, max_fields: int, max_part_size: int
) -> AsyncIterator[FormData]:
    """A multipart form with one file at most, which is deleted on the way out."""
    _check_charset(request)
    parser = MultiPartParser(
        request.headers,
        _limited(request, limit),
        max_files=1,
        max_fields=max_fields,
        max_part_size=max_part_size,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Refused(400, "bad_form", error.message[:200], where="body") from error
    try:
        yield form
    finally:
        await form.close()


def _check_charset(request: Request) -> None:
    """Refuse a form in another encoding: some of them decode to text that no UTF-8 can hold."""
    message = Message()
    message["content-type"] = request.headers.get("content-type", "")
    charset = message.get_param("charset", "utf-8")
    if not isinstance(charset, str) or charset.lower() not in _CHARSETS:
        raise Refused(
            400,
            "bad_form",
            "the form is in another encoding than UTF-8",
            where="Content-Type",
            remedy="send it in UTF-8, and leave charset out",
        )


def _form_parts(form: FormData) -> tuple[str, PromptFile]:
    job, prompts = form.get("job", "{}"), form.get("prompts")
    if not isinstance(job, str):
        raise InvalidInput("the part is a file", where="job", remedy="send it without a file name")
    if not isinstance(prompts, UploadFile):
        raise InvalidInput(
            "the prompt file is missing",
            where="prompts",
            remedy=f"send a part named prompts with a file name in {', '.join(SUFFIXES)}",
        )
    name = prompts.filename or ""
    return job, PromptFile(name[-80:], checked_source(name, "prompts"), prompts.file)


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # Counted once: counting anew for each name would take hours for a body full of names.
        twin = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise InvalidInput(f"the field {twin[:40]!r} is given twice", where="body")
    return found


def _no_constant(name: str) -> float:
    raise Refused(422, "not_finite", f"{name} is not a number", where="body")
