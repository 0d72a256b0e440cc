"""Any S3 with conditional PUT: obstore moves bytes and signs GETs, boto3 signs PUTs (length, checksum, create-only).

Credentials come from the environment or the machine's role, as both libraries find them. Most stores ignore the signed
sha256, so whoever receives a part checks it again.
"""

import base64
import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import httpx
import obstore
from obstore import exceptions, store
from obstore.store import S3Store as Bucket

from fleetbatch.errors import RejectedError, TransientError
from fleetbatch.store.base import MissingObject, SignedPut, checked_key
from fleetbatch.units import Sha256

_CHUNK_BYTES: Final = 8 << 20
_REGION: Final = "us-east-1"
"""What S3 servers other than Amazon's expect when nobody names a region."""


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Store:
    """A prefix of a bucket."""

    url: str
    """From which a worker in another process opens it again."""
    bucket: Bucket
    client: Callable[[], Any]
    """Gives boto3's S3 client, which costs most of a second to make, and only who signs PUTs needs it."""
    bucket_name: str
    prefix: str
    """Without slashes at its ends; may be empty."""
    endpoint: str
    region: str

    def __reduce__(self) -> "tuple[Callable[[str], S3Store], tuple[str]]":
        """Pickle by the URL: neither connections nor credentials travel."""
        return open_s3, (self.url,)

    def read(self, key: str) -> bytes:
        """Return a whole object."""
        with _sorted_errors(key):
            return bytes(obstore.get(self.bucket, checked_key(key)).bytes())

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Return bytes [start, stop) of an object."""
        with _sorted_errors(key):
            return bytes(obstore.get_range(self.bucket, checked_key(key), start=start, end=stop))

    def size(self, key: str) -> int | None:
        """Return an object's size in bytes, or None."""
        try:
            with _sorted_errors(key):
                return obstore.head(self.bucket, checked_key(key))["size"]
        except MissingObject:
            return None

    def write(self, key: str, data: bytes) -> None:
        """Replace an object atomically."""
        with _sorted_errors(key):
            obstore.put(self.bucket, checked_key(key), data, use_multipart=False)

    def create(self, key: str, data: bytes | memoryview) -> bool:
        """Put an object unless the key is taken."""
        return self._create(key, data)

    def create_file(self, key: str, path: Path) -> bool:
        """Put a file's bytes unless the key is taken; in one request, so at most 5 GiB."""
        return self._create(key, path)

    def arrival(self, key: str) -> "S3Arrival":
        """Return an object that comes whole: only one request alone is create-only everywhere."""
        return S3Arrival(lambda data: self._create(key, data))

    def fetch(self, key: str, path: Path) -> None:
        """Copy an object into a file."""
        with _sorted_errors(key), path.open("wb") as file:
            for chunk in obstore.get(self.bucket, checked_key(key)).stream(_CHUNK_BYTES):
                file.write(chunk)

    def copy(self, source: str, target: str) -> bool:
        """Copy inside the bucket. Two copies racing for one target are both made: keys follow from content."""
        if self.size(target) is not None:
            return False
        with _sorted_errors(source):
            obstore.copy(self.bucket, checked_key(source), checked_key(target))
        return True

    def delete(self, key: str) -> None:
        """Remove an object if it is there."""
        with contextlib.suppress(MissingObject), _sorted_errors(key):
            obstore.delete(self.bucket, checked_key(key))

    def keys(self, prefix: str) -> Iterator[str]:
        """Give the keys that begin with a text, sorted."""
        with _sorted_errors(prefix):
            pages = obstore.list(self.bucket, prefix.rpartition("/")[0] or None)
            found = [meta["path"] for page in pages for meta in page]
        yield from sorted(key for key in found if key.startswith(prefix))

    def uri(self, key: str) -> str:
        """Return s3://bucket/prefix/key."""
        return f"s3://{self.bucket_name}/{self._full(key)}"

    def storage_options(self) -> dict[str, str]:
        """Return where the bucket is; credentials stay where the libraries find them."""
        options = {"aws_region": self.region}
        if self.endpoint:
            options |= {"aws_endpoint_url": self.endpoint}
        if self.endpoint.startswith("http://"):
            options |= {"aws_allow_http": "true"}
        return options

    def sign_get(self, key: str, *, now: datetime, expires: timedelta) -> str:  # noqa: ARG002 # obstore signs by its own clock
        """Return a URL that reads one object (AWS Signature 4)."""
        return obstore.sign(self.bucket, "GET", checked_key(key), expires)

    def sign_put(
        self,
        key: str,
        *,
        size: int,
        sha256: Sha256,
        now: datetime,  # noqa: ARG002 # boto3 signs by its own clock
        expires: timedelta,
    ) -> SignedPut:
        """Return a URL that creates one object of exactly this size, its hash among the signed headers.

        Raises TransientError when there are no credentials to sign with.
        """
        from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped] # the package has no types

        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
        wanted = {"Bucket": self.bucket_name, "Key": self._full(key), "ContentLength": size}
        wanted |= {"ChecksumSHA256": checksum, "IfNoneMatch": "*"}
        try:
            url: str = self.client().generate_presigned_url("put_object", wanted, int(expires.total_seconds()))
        except BotoCoreError as error:
            message = f"the store's uploads cannot be signed: {error}"
            raise TransientError(message) from error
        headers = {"Content-Length": str(size), "x-amz-checksum-sha256": checksum, "If-None-Match": "*"}
        return SignedPut(url=url, headers=headers)

    def refuses(self, url: str, *, now: datetime) -> bool:  # noqa: ARG002 # the server knows the time
        """Ask the server for the URL's first byte."""
        try:
            answer = httpx.get(url, headers={"Range": "bytes=0-0"}, timeout=30)
        except httpx.HTTPError as error:
            message = f"the store did not answer: {error}"
            raise TransientError(message) from error
        return answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}

    def _create(self, key: str, data: bytes | memoryview | Path) -> bool:
        try:
            with _sorted_errors(key):
                obstore.put(self.bucket, checked_key(key), data, mode="create", use_multipart=False)
        except FileExistsError:
            return False
        return True

    def _full(self, key: str) -> str:
        return f"{self.prefix}/{checked_key(key)}" if self.prefix else checked_key(key)


class S3Arrival:
    """An object that one request will make."""

    piece_bytes = None

    def __init__(self, create: Callable[[bytes | memoryview], bool]) -> None:
        """Begin with nothing; `create` makes what comes the object."""
        self._create, self._data = create, list[bytes | memoryview]()

    def add(self, piece: bytes | memoryview) -> None:
        """Take the whole object, which must stay as it is."""
        assert not self._data, "the object comes in one piece"
        self._data.append(piece)

    def keep(self) -> bool:
        """Send it; return False, changing nothing, when the key is taken."""
        return self._create(self._data[0] if self._data else b"")

    def drop(self) -> None:
        """Forget it."""
        self._data.clear()


def open_s3(url: str) -> S3Store:
    """Open `s3://bucket/prefix?endpoint=http://host:port&region=name`; the query is for servers other than Amazon's."""
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    unknown = sorted(query.keys() - {"endpoint", "region"})
    if unknown or not parts.netloc:
        summary = f"{url!r} is not s3://BUCKET/PREFIX, with `endpoint` and `region` in the query where needed"
        raise RejectedError(summary, [f"`{name}` is not known" for name in unknown])
    endpoint, region, prefix = query.get("endpoint", ""), query.get("region", _REGION), parts.path.strip("/")
    where: store.S3Config = {"endpoint": endpoint} if endpoint else {}
    plain: store.ClientConfig = {"allow_http": endpoint.startswith("http://")}
    return S3Store(
        url=url,
        bucket=Bucket(parts.netloc, prefix=prefix or None, region=region, client_options=plain, config=where),
        client=functools.cache(functools.partial(_client, endpoint, region)),
        bucket_name=parts.netloc,
        prefix=prefix,
        endpoint=endpoint,
        region=region,
    )


def _client(endpoint: str, region: str) -> Any:  # noqa: ANN401 # boto3 has no types
    import boto3  # type: ignore[import-untyped] # the package has no types
    from botocore.config import Config  # type: ignore[import-untyped] # the package has no types

    config = Config(signature_version="s3v4", s3={"addressing_style": "path" if endpoint else "auto"})
    # A session of its own: the library's shared one keeps the first credentials that it met.
    return boto3.session.Session().client("s3", endpoint_url=endpoint or None, region_name=region, config=config)


@contextlib.contextmanager
def _sorted_errors(key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise MissingObject(key) from error
    except exceptions.AlreadyExistsError as error:
        raise FileExistsError(key) from error
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        summary = f"the store refuses {key!r}: check the credentials' rights on the bucket"
        raise RejectedError(summary) from error
    except (exceptions.BaseError, OSError) as error:
        message = f"the store cannot serve {key!r} now: {str(error).partition(chr(10))[0]}"
        raise TransientError(message) from error
