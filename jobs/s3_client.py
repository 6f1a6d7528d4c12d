"""How we talk to S3: the client's settings, and what its errors mean to us."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar
from urllib.parse import urlsplit

import boto3.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's own, not the builtin
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
)
from urllib3.exceptions import HTTPError

from jobs.errors import BadConfiguration, FewstepError, NotFound, Unreachable
from jobs.settings import Settings, s3_secrets
from jobs.store_metrics import measure

T = TypeVar("T")
#: boto3 makes the class of its clients at run time: there is none to name.
S3Client: TypeAlias = Any

#: Requests in flight at most: manifests are read sixteen at a time, twice over.
CONNECTIONS = 32
#: A reset connection is given up after 0.1 s by the default of 3 attempts; 8 last about a minute.
ATTEMPTS = 8

_KEYS = "check FEWSTEP_S3_ACCESS_KEY and FEWSTEP_S3_SECRET_KEY"
_REMEDIES = {
    "InvalidAccessKeyId": _KEYS,
    "SignatureDoesNotMatch": _KEYS,
    "InvalidToken": _KEYS,
    "ExpiredToken": "the keys have expired: renew them",
    "AccessDenied": "these keys may not do that in this bucket: check the keys and their rights",
    "403": "these keys may not do that in this bucket: check the keys and their rights",
    "RequestTimeTooSkewed": "set this machine's clock",
    "AuthorizationHeaderMalformed": "check FEWSTEP_S3_REGION",
    "PermanentRedirect": "check FEWSTEP_S3_REGION and FEWSTEP_S3_ENDPOINT",
    "301": "check FEWSTEP_S3_REGION and FEWSTEP_S3_ENDPOINT",
    "NoSuchBucket": "create the bucket, or name another one in FEWSTEP_S3_BUCKET",
}
_ABSENT = frozenset({"NoSuchKey", "404", "NotFound"})
# What passes by itself though its status is one of the 400s: too many requests, another writer of
# the same key at this moment, and bodies that were cut or changed on their way.
_BUSY = frozenset(
    {
        "SlowDown",
        "RequestTimeout",
        "Throttling",
        "ThrottlingException",
        "ConditionalRequestConflict",
        "OperationAborted",
        "IncompleteBody",
        "BadDigest",
    }
)


def s3_clients(settings: Settings) -> tuple[S3Client, S3Client]:
    """Thread-safe clients: one that gives up within seconds, and one that tries for a minute.

    Raises BadConfiguration where the endpoint is no address.
    """
    # One session for both: reading the service's description is what takes the time.
    session = boto3.session.Session()
    return _client(session, settings, 2), _client(session, settings, ATTEMPTS)


def _client(session: boto3.session.Session, settings: Settings, attempts: int) -> S3Client:
    access, secret = s3_secrets(settings)
    try:
        client = session.client(
            "s3",
            endpoint_url=settings.s3_endpoint,
            region_name=settings.s3_region,
            aws_access_key_id=access,
            aws_secret_access_key=secret,
            config=_config(settings.s3_endpoint, attempts),
        )
    except ValueError as error:
        raise BadConfiguration(
            str(error), where="FEWSTEP_S3_ENDPOINT", remedy="give it as http(s)://host:port"
        ) from error
    measure(client)
    return client


def _config(endpoint: str | None, attempts: int) -> Config:
    host = urlsplit(endpoint or "").hostname or ""
    elsewhere = bool(endpoint) and not host.endswith(".amazonaws.com")
    # Other makers' stores broke on the checksums that newer clients add by themselves.
    checksums: Literal["when_required", "when_supported"] = (
        "when_required" if elsewhere else "when_supported"
    )
    return Config(
        signature_version="s3v4",
        retries={"mode": "standard", "total_max_attempts": attempts},
        # A store that is away is noticed in seconds; one that thinks is given a minute.
        connect_timeout=5,
        read_timeout=60,
        # Connections idle while a shard renders would be dropped by firewalls in between.
        tcp_keepalive=True,
        max_pool_connections=CONNECTIONS,
        # A bucket as a host name needs DNS entries that only AWS is sure to have.
        s3={"addressing_style": "path" if endpoint else "auto"},
        request_checksum_calculation=checksums,
        response_checksum_validation=checksums,
    )


def code_of(error: Exception) -> str:
    """The S3 error code of a client's error, or its HTTP status; "" for other errors."""
    if not isinstance(error, ClientError):
        return ""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: Exception) -> int:
    """The HTTP status of a client's error; 0 for other errors."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_lost(error: Exception) -> bool:
    """Whether an upload in parts is gone: it may have been completed and the reply lost."""
    return code_of(error) == "NoSuchUpload"


def is_taken(error: Exception) -> bool:
    """Whether the error says that an object of that name is there already."""
    return status_of(error) == 412 or code_of(error) in {"PreconditionFailed", "412"}


def is_transient(error: Exception) -> bool:
    """Whether asking again later may help: no connection, a cut reply, 5xx, throttling."""
    if isinstance(error, ConnectionError | HTTPClientError | IncompleteReadError | HTTPError):
        return True
    if code_of(error) == "NotImplemented":
        return False
    return status_of(error) >= 500 or code_of(error) in _BUSY


def explain(error: Exception, where: str) -> FewstepError:
    """Our error for one of the client's; `where` names address and object."""
    code = code_of(error)
    if is_transient(error):
        return Unreachable(
            f"the store does not answer: {error}",
            where=where,
            remedy="check FEWSTEP_S3_ENDPOINT and that the store is up",
        )
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return BadConfiguration("there are no keys for the store", where=where, remedy=_KEYS)
    if code in _REMEDIES:
        return BadConfiguration(f"the store refused: {code}", where=where, remedy=_REMEDIES[code])
    if code in _ABSENT:
        return NotFound("there is no such object", where=where)
    return FewstepError(f"the store failed: {error}", where=where)


#: What the client raises; anything else is a mistake of ours and passes through. urllib3's own
#: come through botocore where a reply to a refusal, which is read at once, is cut or stalls.
CLIENT_ERRORS = (BotoCoreError, ClientError, HTTPError)


@dataclass(frozen=True)
class Patience:
    """How long to go on asking a store that does not answer, beyond the client's own retries.

    A loop of our own and not a library's: deadline, clock and pause are all a test's to set.
    """

    seconds: float = 600.0
    pause_s: float = 1.0
    pause_max_s: float = 30.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def ask(self, call: Callable[[], T], where: str) -> T:
        """`call()`, repeated while its error may pass and the time lasts.

        Raises what `explain` makes of the last error.
        """
        end, pause = self.clock() + self.seconds, self.pause_s
        while True:
            try:
                return call()
            except CLIENT_ERRORS as error:
                if not is_transient(error) or self.clock() + pause > end:
                    raise explain(error, where) from error
            # Half of the pause is random, so that many renderers do not come back together.
            self.sleep(pause * (0.5 + 0.5 * random.random()))
            pause = min(2 * pause, self.pause_max_s)


#: For reads: a reply cut in the middle is asked for again, an outage is reported soon.
BRIEF = Patience(seconds=10.0, pause_s=0.2, pause_max_s=2.0)
