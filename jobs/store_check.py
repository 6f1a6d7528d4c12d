"""What a store must prove before we use it: it answers, the keys fit, the bucket is there."""

import uuid

from jobs.s3_client import CLIENT_ERRORS, S3Client, code_of, explain, is_taken, status_of


def check_bucket(client: S3Client, bucket: str, address: str, *, create: bool) -> None:
    """List the bucket once; `create` makes it where it is missing.

    Raises Unreachable, or BadConfiguration for wrong keys or a missing bucket, naming `address`.
    """
    where = f"{address}, bucket {bucket}"
    try:
        # Not HeadBucket: its refusals have no body, so a wrong key looks like a missing right.
        client.list_objects_v2(Bucket=bucket, MaxKeys=1)
    except CLIENT_ERRORS as error:
        if code_of(error) != "NoSuchBucket" or not create:
            raise explain(error, where) from error
        _create(client, bucket, where)


def _create(client: S3Client, bucket: str, where: str) -> None:
    region = client.meta.region_name
    try:
        if region == "us-east-1":
            client.create_bucket(Bucket=bucket)
        else:
            client.create_bucket(
                Bucket=bucket,
                CreateBucketConfiguration={"LocationConstraint": region},
            )
    except CLIENT_ERRORS as error:
        # Another process may have made it in between.
        if code_of(error) not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
            raise explain(error, where) from error


def honours_absent(client: S3Client, bucket: str, folder: str, address: str) -> bool:
    """Whether a second write under `If-None-Match: *` is refused, tried on a key of its own.

    Some stores ignore the condition without a word; others refuse it as not implemented.
    """
    key = f"{folder}probe-{uuid.uuid4()}"
    where = f"{address}, {bucket}/{key}"
    try:
        for body in (b"1", b"2"):
            client.put_object(Bucket=bucket, Key=key, Body=body, IfNoneMatch="*")
        return False
    except CLIENT_ERRORS as error:
        # Nobody else writes this key, so the refusal alone is proof enough.
        if is_taken(error):
            return True
        if status_of(error) == 501 or code_of(error) == "NotImplemented":
            return False
        raise explain(error, where) from error
    finally:
        _remove(client, bucket, key)


def _remove(client: S3Client, bucket: str, key: str) -> None:
    try:
        client.delete_object(Bucket=bucket, Key=key)
    except CLIENT_ERRORS:
        # A byte left in the scratch space harms nobody; keys without delete rights do work, and
        # a store that went away in between is noticed by whoever asks next.
        return
