"""One core for the proxy, and the others for what it stands between: so that it is the proxy that is busy all the time."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def tree(root: int) -> list[int]:
    """A process and its children, and theirs."""
    found = [root]
    for pid in found:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def pin(pid: int, cores: set[int]) -> None:
    """Keeps all threads of a process on some cores; threads that it starts later come from these, and stay too."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        # A thread may have ended meanwhile.
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cores)


@contextlib.contextmanager
def apart(proxy: int, others: tuple[int, ...]) -> Iterator[set[int]]:
    """For the length of a `with` a proxy has the first core to itself; gives the cores of the others. Needs two."""
    every = os.sched_getaffinity(0)
    first, rest = {min(every)}, every - {min(every)}
    proxies = tree(proxy)
    try:
        for pid in proxies:
            pin(pid, first)
        for pid in others:
            pin(pid, rest)
        yield rest
    finally:
        for pid in (*proxies, *others):
            pin(pid, every)
