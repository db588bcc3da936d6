"""Child processes that end with the run, whichever way it ends."""

import contextlib
import ctypes
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .failure import Failure

START_MAX_S = 15
STOP_MAX_S = 5
PR_SET_PDEATHSIG = 1


class Processes:
    """Started children, ended by their ids."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.children: list[subprocess.Popen] = []

    def start(self, name: str, words: list[str], env: dict[str, str] | None = None) -> subprocess.Popen:
        """Starts a child; its output goes to NAME.out and NAME.err beside the configurations."""
        with open(self.logs / f"{name}.out", "wb") as out, open(self.logs / f"{name}.err", "wb") as err:
            child = subprocess.Popen(
                words, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, preexec_fn=end_with_parent
            )
        child.log_name = name
        self.children.append(child)
        return child

    def wait_for_port(self, child: subprocess.Popen, port: int, max_s: float = START_MAX_S) -> None:
        """Waits until something accepts on the loopback port."""
        def accepts() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return True
            return False
        self.wait(child, accepts, f"port {port}", max_s)

    def wait(self, child: subprocess.Popen, ready, what: str, max_s: float = START_MAX_S) -> None:
        """Waits until `ready()` holds, the child dies, or it took too long."""
        deadline = time.monotonic() + max_s
        while not ready():
            if child.poll() is not None or time.monotonic() > deadline:
                tail = (self.logs / f"{child.log_name}.err").read_text(errors="replace")[-2000:]
                raise Failure(f"{child.log_name} does not come up ({what}):\n{tail}")
            time.sleep(0.05)

    def stop(self, child: subprocess.Popen) -> None:
        """Ends one child and waits for it."""
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(STOP_MAX_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def stop_all(self) -> None:
        """Ends what is left, the last started first."""
        for child in reversed(self.children):
            with contextlib.suppress(OSError):
                self.stop(child)


@contextlib.contextmanager
def processes(logs: Path) -> Iterator[Processes]:
    """Children for the length of a `with`; a SIGTERM ends it too."""
    children = Processes(logs)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield children
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        children.stop_all()


def end_with_parent() -> None:
    """In the child: a SIGTERM when the parent dies, even of SIGKILL."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
