"""What the store tells of its objects."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jobs.errors import InvalidInput

#: What S3 allows of a key, in bytes.
MAX_KEY = 1024
# Stores differ in what they make of "..", "%2e", a backslash or a control character in a key.
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,127})*")


def checked_key(key: str) -> str:
    """`key` if an object of ours may have it; raises InvalidInput otherwise."""
    if len(key) > MAX_KEY or not _KEY.fullmatch(key):
        raise InvalidInput(
            f"{key[:60]!r} is no key that we write",
            where="key",
            remedy="names of A-Z a-z 0-9 . _ -, at most 128 each, joined by slashes",
        )
    return key


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object's facts; metadata names are in lower case, and absent from listings.

    `modified_ms` is in milliseconds since 1970 (UTC), though many stores count whole seconds.
    """

    key: str
    bytes: int
    etag: str
    modified_ms: int
    metadata: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_head(cls, key: str, reply: Mapping[str, Any]) -> "ObjectInfo":
        """From the reply to a HEAD."""
        return cls(
            key=key,
            bytes=reply["ContentLength"],
            etag=reply["ETag"].strip('"'),
            modified_ms=int(reply["LastModified"].timestamp() * 1000),
            # Some stores give names back with a capital letter.
            metadata={name.lower(): value for name, value in reply["Metadata"].items()},
        )

    @classmethod
    def of_listing(cls, entry: Mapping[str, Any]) -> "ObjectInfo":
        """From an entry of a listing."""
        return cls(
            key=entry["Key"],
            bytes=entry["Size"],
            etag=entry["ETag"].strip('"'),
            modified_ms=int(entry["LastModified"].timestamp() * 1000),
        )


@dataclass(frozen=True, slots=True)
class PutReply:
    """`stored` is False where `if_absent` found an object that is not ours.

    `fresh` is False where ours was there before: an earlier try's, whose bytes may differ.
    """

    stored: bool
    etag: str
    fresh: bool = True


def taken(found: ObjectInfo, metadata: Mapping[str, str]) -> PutReply:
    """The reply to a write that found an object there: ours if it bears our `token`."""
    ours = metadata.get("token", "").lower()
    stored = bool(ours) and found.metadata.get("token", "").lower() == ours
    return PutReply(stored=stored, etag=found.etag, fresh=False)
