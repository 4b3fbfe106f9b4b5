"""A real S3 server on this machine: SeaweedFS, with credentials that it checks."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

KEY, SECRET = "AKIDLOOPBACK", "secret-of-loopback"


@dataclass(frozen=True)
class S3Server:
    """Where the server listens."""

    port: int

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self, port: int | None = None) -> dict[str, str]:
        """What a client needs to be let in, directly or through a proxy on another port."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port or self.port}",
        }

    def upload(self, folder: Path, bucket: str, prefix: str) -> str:
        """Copy a folder into a bucket, which is made when missing; returns its address."""
        import obstore

        store = self.store(bucket)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                obstore.put(store, f"{prefix}/{path.relative_to(folder).as_posix()}", path)
        return f"s3://{bucket}/{prefix}"

    def store(self, bucket: str):  # type: ignore[no-untyped-def]
        from obstore.store import S3Store

        return S3Store(
            bucket,
            endpoint=self.endpoint,
            access_key_id=KEY,
            secret_access_key=SECRET,
            region="us-east-1",
            client_options={"allow_http": True},
        )


@contextmanager
def serving(folder: Path, options: Sequence[str] = ()) -> Iterator[S3Server]:
    """Run a server whose files lie in a folder."""
    ports = iter(_free_ports(10))
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    server = S3Server(next(ports))
    command = [
        str(Path(sys.executable).parent / "weed"),
        "server",
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-s3",
        f"-s3.port={server.port}",
        f"-s3.config={folder / 's3.json'}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=0",
        *options,
        *(f"-{service}.port={next(ports)}" for service in ("master", "volume", "filer")),
        *(f"-{service}.port.grpc={next(ports)}" for service in ("master", "volume", "filer", "s3")),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        _wait(server, process, folder / "log")
        yield server
    finally:
        process.kill()  # asked to end, it would take ten seconds over it
        process.wait()


def _wait(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    import obstore

    deadline = time.monotonic() + 90
    while True:
        try:
            # The gateway answers before it can store anything.
            obstore.put(server.store("ready"), "ready", b"ready")
        except Exception as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"SeaweedFS does not start: {log.read_text()[-2000:]}") from error
            time.sleep(0.3)
        else:
            return


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports
