"""S3 servers for tests: moto for the ordinary paths (it accepts forged signatures), Ceph's radosgw as a real one."""

import contextlib
import functools
import json
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import boto3  # type: ignore[import-untyped] # the package has no types
import pytest
from botocore.config import Config  # type: ignore[import-untyped] # the package has no types

RADOSGW = Path(__file__).parents[1] / "infra" / "radosgw.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """A server and whoever may do everything on it."""

    endpoint: str
    key: str
    secret: str

    def bucket_url(self, name: str = "") -> str:
        """Make a bucket, of any name unless one is given, and return its URL as a store's."""
        name = name or f"b{secrets.token_hex(8)}"
        _client(self).create_bucket(Bucket=name)
        return f"s3://{name}/a/cell?endpoint={self.endpoint}"

    def environment(self) -> dict[str, str]:
        """Return the variables by which the libraries find the credentials."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",  # pyarrow's S3 needs it on radosgw
        }


@functools.cache
def _client(server: S3Server) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=server.key,
        aws_secret_access_key=server.secret,
        config=Config(s3={"addressing_style": "path"}),
    )


def free_port() -> int:
    """Return a port that nobody has taken."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def moto(port: int = 0) -> Iterator[S3Server]:
    """Give moto's server, on any free port unless one is given; skip the test where it is not installed."""
    beside = Path(sys.executable).with_name("moto_server")
    program = str(beside) if beside.is_file() else shutil.which("moto_server")
    if program is None:
        pytest.skip("moto_server is not installed: pip install 'moto[server]' to try the S3 paths")
    port = port or free_port()
    command = [program, "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        with contextlib.suppress(OSError):
            urlopen(f"{url}/moto-api/").close()
            break
        time.sleep(0.1)
    try:
        yield S3Server(endpoint=url, key="test", secret="test")
    finally:
        server.terminate()
        server.wait(10)


@contextlib.contextmanager
def radosgw() -> Iterator[S3Server]:
    """Give a running radosgw; skip the test, saying why, where it cannot be had."""
    with tempfile.TemporaryDirectory(prefix="rgw-") as home:
        command = [sys.executable, str(RADOSGW), "serve", f"{home}/r"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as server:
            assert server.stdout is not None
            assert server.stderr is not None
            line = server.stdout.readline()
            if not line:
                pytest.skip(server.stderr.read().decode().strip())
            try:
                yield S3Server(**json.loads(line))
            finally:
                server.terminate()
                server.wait(60)
