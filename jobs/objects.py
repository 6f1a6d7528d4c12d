"""What the store tells of its objects."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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
