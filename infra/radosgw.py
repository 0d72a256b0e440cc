# ruff: noqa: INP001, TID251 # a script; it reads the environment
"""A real S3 server without root: `python infra/radosgw.py serve FOLDER` runs Ceph's radosgw on this machine.

It unpacks Debian's packages with `dpkg -x` (once, about 70 MB, into `~/.cache/fleetbatch/radosgw`) and starts a
monitor, one object store daemon in memory and the gateway, all on the loopback. On standard output it prints one JSON
line with endpoint, key and secret; it ends with its standard input or SIGTERM, and nothing is kept. Exit code 75: it
cannot be had here (no Debian, no network, another release), and standard error says why.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fleetbatch" / "radosgw"
WANTED = ("radosgw", "ceph-mon", "ceph-osd", "ceph-common")
KEY, SECRET = "fleetbatch", "fleetbatch-on-this-machine-only"
NOT_HERE = 75
_STEP_S = 60
_READY_S = 60
_STOP_S = 10


class NotHereError(Exception):
    """radosgw cannot be had on this machine."""


def unpacked() -> Path:
    """Return the folder in which Debian's packages lie unpacked, fetching them the first time."""
    root = CACHE / "unpacked"
    if root.exists():
        return root
    missing = [name for name in ("apt-get", "apt-cache", "dpkg") if shutil.which(name) is None]
    if missing:
        message = f"{', '.join(missing)} missing: this is no Debian"
        raise NotHereError(message)
    CACHE.mkdir(parents=True, exist_ok=True)
    # Whole or not there: two that start at one time each unpack into a folder of their own, and the first one's stays.
    with tempfile.TemporaryDirectory(dir=CACHE) as place:
        made = _unpack(Path(place))
        with contextlib.suppress(OSError):
            made.rename(root)
    return root


def _unpack(place: Path) -> Path:
    debs, root = place / "debs", place / "root"
    debs.mkdir()
    plan = _run(["apt-get", "-s", "install", "--no-install-recommends", *WANTED])
    names = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    _run(["apt-get", "download", *(names or WANTED)], folder=debs)
    for package in sorted(debs.glob("*.deb")):
        _run(["dpkg", "-x", str(package), str(root)])
    return root


def _run(command: list[str], *, folder: Path | None = None, env: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(  # noqa: S603 # Debian's own programs
            command, cwd=folder, env=env, capture_output=True, text=True, timeout=_STEP_S, check=False
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        message = f"{command[0]} did not answer: {error}"
        raise NotHereError(message) from error
    if done.returncode:
        message = f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-400:]}"
        raise NotHereError(message)
    return done.stdout


class Ceph:
    """One monitor, one daemon in memory, one gateway; the folder should have a short name (sockets)."""

    def __init__(self, root: Path, home: Path) -> None:
        """Write the configuration."""
        self.home, self.bin = home, root / "usr" / "bin"
        libraries, more = (next((root / place).glob("*-linux-gnu")) for place in ("usr/lib", "lib"))
        python = next((root / "usr" / "lib").glob("python3*/dist-packages"), libraries)
        self.env = {
            **os.environ,
            "LD_LIBRARY_PATH": f"{libraries}:{libraries}/ceph:{more}",
            "PYTHONPATH": str(python),
            "CEPH_CONF": str(home / "ceph.conf"),
        }
        self.ports = _free_ports(2)
        self.endpoint = f"http://127.0.0.1:{self.ports[1]}"
        (home / "ceph.conf").write_text(self._configuration(libraries))
        self.daemons: list[subprocess.Popen[bytes]] = []

    def _configuration(self, libraries: Path) -> str:
        settings = {
            "fsid": str(uuid.uuid4()),
            "mon host": f"v2:127.0.0.1:{self.ports[0]}",
            "auth cluster required": "none",
            "auth service required": "none",
            "auth client required": "none",
            "ms mon client mode": "crc secure",
            "ms bind msgr1": "false",
            "public addr": "127.0.0.1",
            "cluster addr": "127.0.0.1",
            "mon data": str(self.home / "mon"),
            "osd data": str(self.home / "osd"),
            "osd objectstore": "memstore",
            "memstore device bytes": str(4 << 30),
            "osd class dir": str(libraries / "rados-classes"),
            "erasure code dir": str(libraries / "ceph" / "erasure-code"),
            "osd pool default size": "1",
            "osd pool default min size": "1",
            "osd pool default pg num": "4",
            "osd crush chooseleaf type": "0",
            "mon allow pool size one": "true",
            "run dir": str(self.home),
            "admin socket": "",
            "log file": str(self.home / "$name.log"),
            "mon cluster log file": str(self.home / "cluster.log"),
            "rgw frontends": f"beast endpoint=127.0.0.1:{self.ports[1]} tcp_nodelay=1",
            "rgw enable usage log": "false",
        }
        return "[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items())

    def start(self) -> None:
        """Bring all up, with a user who may do everything; raise NotHereError when a step does not end."""
        for name in ("mon", "osd"):
            (self.home / name).mkdir()
        where, number = f"[v2:127.0.0.1:{self.ports[0]}]", str(uuid.uuid4())
        self._tool("monmaptool", "--create", "--addv", "a", where, str(self.home / "monmap"))
        self._tool("ceph-mon", "--mkfs", "-i", "a", "--monmap", str(self.home / "monmap"))
        self._daemon("ceph-mon", "-i", "a")
        self._tool("/usr/bin/python3", str(self.bin / "ceph"), "osd", "new", number)
        self._tool("ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", number)
        self._daemon("ceph-osd", "-i", "0")
        user = ("--uid", KEY, "--display-name", KEY, "--access-key", KEY, "--secret-key", SECRET)
        self._tool("radosgw-admin", "user", "create", *user)  # hangs while there is no daemon; every step is bounded
        self._daemon("radosgw", "-n", "client.rgw")
        self._wait_ready()

    def stop(self) -> None:
        """End what was started, last first."""
        for daemon in self.daemons[::-1]:
            daemon.terminate()
        for daemon in self.daemons[::-1]:
            try:
                daemon.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _tool(self, program: str, *words: str) -> None:
        _run([str(self.bin / program), *words], env=self.env)

    def _daemon(self, program: str, *words: str) -> None:
        with (self.home / f"{program}.out").open("wb") as out:
            command = [str(self.bin / program), "-f", *words]
            self.daemons.append(subprocess.Popen(command, env=self.env, stdout=out, stderr=out))  # noqa: S603 # as above

    def _wait_ready(self) -> None:
        give_up_at = time.monotonic() + _READY_S
        while time.monotonic() < give_up_at:
            with contextlib.suppress(urllib.error.URLError, OSError):
                urllib.request.urlopen(self.endpoint, timeout=1).close()  # noqa: S310 # the loopback
                return
            time.sleep(0.1)
        message = f"radosgw did not answer within {_READY_S} s; see {self.home}"
        raise NotHereError(message)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in taken]


@contextlib.contextmanager
def radosgw(home: Path) -> Iterator[dict[str, str]]:
    """Give a running server's endpoint, key and secret; raise NotHereError where it cannot be had."""
    home.mkdir(parents=True, exist_ok=True)
    ceph = Ceph(unpacked(), home)
    try:
        ceph.start()
        yield {"endpoint": ceph.endpoint, "key": KEY, "secret": SECRET}
    finally:
        ceph.stop()


def _until_input_ends(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


def main(words: list[str]) -> int:
    """Serve until standard input closes or SIGTERM comes."""
    if words[:1] != ["serve"] or len(words) != len(("serve", "FOLDER")):
        sys.stderr.write(f"{__doc__}\n")
        return 2
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    signal.signal(signal.SIGINT, lambda *_: over.set())
    threading.Thread(target=_until_input_ends, args=(over,), daemon=True).start()
    try:
        with radosgw(Path(words[1])) as server:
            sys.stdout.write(json.dumps(server) + "\n")
            sys.stdout.flush()
            over.wait()
    except NotHereError as error:
        sys.stderr.write(f"radosgw is not to be had here: {error}\n")
        return NOT_HERE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
