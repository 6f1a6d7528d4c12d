"""Writing one object, in one piece or in parts: whole, or not at all."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

from botocore.exceptions import ClientError

from jobs.s3_client import CLIENT_ERRORS, S3Client, code_of, is_lost, status_of

#: Objects beyond this are written in parts.
THRESHOLD = 64 << 20
#: 10 000 parts at most, so objects up to 312 GiB.
PART = 32 << 20


@dataclass(frozen=True, slots=True)
class Upload:
    """An object to write: `body` is read from its start; `absent`: only where there is none."""

    bucket: str
    key: str
    body: IO[bytes]
    size: int
    content_type: str
    metadata: Mapping[str, str]
    absent: bool = False

    def write(self, client: S3Client) -> str:
        """Write it and return its etag; may be called again. Raises the client's errors."""
        self.body.seek(0)
        if self.size > THRESHOLD:
            return self._write_parts(client)
        reply = client.put_object(**self._target, Body=self.body, **self._facts, **self._condition)
        return str(reply["ETag"]).strip('"')

    @property
    def _target(self) -> dict[str, Any]:
        return {"Bucket": self.bucket, "Key": self.key}

    @property
    def _facts(self) -> dict[str, Any]:
        return {"ContentType": self.content_type, "Metadata": dict(self.metadata)}

    @property
    def _condition(self) -> dict[str, Any]:
        return {"IfNoneMatch": "*"} if self.absent else {}

    def _write_parts(self, client: S3Client) -> str:
        upload = client.create_multipart_upload(**self._target, **self._facts)["UploadId"]
        target = {**self._target, "UploadId": upload}
        try:
            parts: list[Any] = []
            # One after another: some stores stream the parts on and refuse another order.
            while data := self.body.read(PART):
                number = len(parts) + 1
                reply = client.upload_part(**target, PartNumber=number, Body=data)
                parts.append({"ETag": reply["ETag"], "PartNumber": number})
            done = client.complete_multipart_upload(
                **target, MultipartUpload={"Parts": parts}, **self._condition
            )
        except BaseException:
            _abort(client, target)
            raise
        return str(done["ETag"]).strip('"')


def _abort(client: S3Client, target: dict[str, Any]) -> None:
    try:
        client.abort_multipart_upload(**target)
    except CLIENT_ERRORS:
        # Gone already, or for the bucket's lifecycle rule to remove; the first error matters.
        return


def abort_uploads(client: S3Client, bucket: str, prefix: str, before_ms: int | None) -> int:
    """End every upload in parts under `prefix`, or those begun before then; how many they were.

    Raises the client's errors; none where the store knows no uploads in parts.
    """
    ended, more = 0, dict[str, str]()
    while True:
        try:
            page = client.list_multipart_uploads(Bucket=bucket, Prefix=prefix, **more)
        except ClientError as error:
            # rclone has no such upload where there is none at all.
            if is_lost(error) or status_of(error) == 501 or code_of(error) == "NotImplemented":
                return ended
            raise
        for entry in page.get("Uploads", ()):
            begun = int(entry["Initiated"].timestamp() * 1000)
            if before_ms is None or begun < before_ms:
                target = {"Bucket": bucket, "Key": entry["Key"], "UploadId": entry["UploadId"]}
                _abort(client, target)
                ended += 1
        if not page.get("IsTruncated"):
            return ended
        more = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
