"""The errors of fewstep: each says what was wrong, where, and what to do.

FewstepError
├── InvalidInput        the user's prompts, recipe or options (exit 2, HTTP 422)
│   ├── TooLarge        a file, line or body beyond its limit (HTTP 413)
│   ├── BadText         text with characters that no column or file can hold
│   └── NothingToRender prompts that are missing or blank
├── BadConfiguration    the operator's settings: keys, bucket, catalog, weights (exit 3, HTTP 503)
├── DamagedJob          a job's own files do not read as what they are (HTTP 500)
├── Unreachable         a server that does not answer (exit 3, HTTP 503)
├── NotFound            no such job, model, image (exit 4, HTTP 404)
├── Conflict            the same name for something else (exit 4, HTTP 409)
├── NoCapacity          not enough memory, no such device (exit 3, HTTP 503)
├── NoAccess            no key, or none that opens anything (exit 3, HTTP 401)
├── Forbidden           the key may not do this (exit 3, HTTP 403)
├── QuotaExceeded       a tenant has used what it may (exit 3, HTTP 429)
│   └── TooManyRequests a key sends faster than it may
├── RenderFailed        an image that could not be made (a failed row, never a failed job)
└── LeaseLost           a renderer's claim on a shard is over: stop and drop the work
"""


class FewstepError(Exception):
    """An error meant to be read by a person.

    `where` names the row, key, field or file; `remedy` says what to do about it.
    """

    #: Exit status of the command line when this error ends it.
    exit_code = 1
    #: Status of the HTTP reply, and the short name in its problem document.
    http_status = 500
    code = "internal"

    def __init__(
        self, message: str, *, where: str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text} ({self.remedy})" if self.remedy else text

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.where, self.remedy))


def _rebuild(
    kind: type[FewstepError], message: str, where: str | None, remedy: str | None
) -> FewstepError:
    return kind(message, where=where, remedy=remedy)


class InvalidInput(FewstepError):
    """The user's prompts, recipe or options are not ones we can render."""

    exit_code, http_status, code = 2, 422, "invalid_input"


class TooLarge(InvalidInput):
    """A file, line or request body beyond its limit."""

    http_status, code = 413, "too_large"


class BadText(InvalidInput):
    """Text with a character that cannot be written down: NUL, half of a surrogate pair."""

    code = "bad_text"


class NothingToRender(InvalidInput):
    """There is no prompt, or it is blank."""

    code = "empty"


class BadConfiguration(FewstepError):
    """The operator's settings are wrong: keys, bucket, catalog, weights."""

    exit_code, http_status, code = 3, 503, "bad_configuration"


class DamagedJob(FewstepError):
    """A job's own files do not read as what they are: it cannot go on, others can."""

    exit_code, code = 4, "damaged_job"


class Unreachable(FewstepError):
    """A server that we need does not answer."""

    exit_code, http_status, code = 3, 503, "unreachable"


class NotFound(FewstepError):
    """There is no such job, model or image."""

    exit_code, http_status, code = 4, 404, "not_found"


class Conflict(FewstepError):
    """The same name or key is already used for something else."""

    exit_code, http_status, code = 4, 409, "conflict"


class NoCapacity(FewstepError):
    """Not enough memory, or no such device."""

    exit_code, http_status, code = 3, 503, "no_capacity"


class NoAccess(FewstepError):
    """There is no key with the request, or none that opens anything."""

    exit_code, http_status, code = 3, 401, "unauthorized"


class Forbidden(FewstepError):
    """The key is good, and may not do this."""

    exit_code, http_status, code = 3, 403, "forbidden"


class QuotaExceeded(FewstepError):
    """A tenant has used what it may; `retry_after_s` says when to come again, where known."""

    exit_code, http_status, code = 3, 429, "quota_exceeded"

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        remedy: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message, where=where, remedy=remedy)
        self.retry_after_s = retry_after_s


class TooManyRequests(QuotaExceeded):
    """A key sends faster than it may."""

    code = "too_many_requests"


class RenderFailed(FewstepError):
    """One image could not be made; its row fails, the job goes on."""

    code = "render_failed"


class LeaseLost(FewstepError):
    """The claim on a shard is over: stop, and drop its results."""

    code = "lease_lost"
