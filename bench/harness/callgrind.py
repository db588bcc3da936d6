"""Instructions of a program, counted by callgrind."""

import re
import shutil
import subprocess
import time
from pathlib import Path

from .failure import Failure

# callgrind makes a program some fifty times slower.
RUN_MAX_S = 300
DUMP_MAX_S = 20


def check() -> None:
    """Says what is missing."""
    for program in ("valgrind", "callgrind_control"):
        if shutil.which(program) is None:
            raise Failure(f"{program} is missing: apt-get install valgrind")


def words(out: Path, counting: bool = True) -> list[str]:
    """How a program is started under callgrind; what it counts goes to files beginning with `out`. Without counting it runs faster."""
    at_start = [] if counting else ["--instr-atstart=no"]
    return ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={out}", *at_start]


def count(program: list[str], given: bytes, out: Path) -> tuple[int, str]:
    """Runs a program to its end; its instructions, and what it printed."""
    done = subprocess.run([*words(out), *program], input=given, capture_output=True, check=False, timeout=RUN_MAX_S)
    if done.returncode != 0:
        raise Failure(f"{' '.join(program)}: {done.stderr.decode(errors='replace')[-2000:]}")
    return total(out), done.stdout.decode()


class Attached:
    """A program that runs under callgrind, and is asked now and then for what it took."""

    def __init__(self, child: subprocess.Popen, out: Path) -> None:
        self.child, self.out, self.dumps = child, out, 0

    @property
    def last(self) -> Path:
        """Where callgrind wrote what it took until it was asked last."""
        return self.out.with_name(f"{self.out.name}.{self.dumps}")

    def counting(self, on: bool) -> None:
        """Whether it counts from here on."""
        self.control(f"--instr={'on' if on else 'off'}")

    def control(self, order: str) -> str:
        """Has callgrind do something; what it says."""
        words = ["callgrind_control", order, str(self.child.pid)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=DUMP_MAX_S)
        return done.stdout + done.stderr

    def taken(self) -> int:
        """Instructions since it was asked last."""
        self.dumps += 1
        file = self.last
        said = self.control("--dump")
        deadline = time.monotonic() + DUMP_MAX_S
        while not (file.exists() and TOTAL.search(file.read_text(errors="replace"))):
            if time.monotonic() > deadline or self.child.poll() is not None:
                raise Failure(f"callgrind does not answer: {said}")
            time.sleep(0.05)
        return total(file)


TOTAL = re.compile(r"^(?:totals|summary): (\d+)$", re.M)


def total(file: Path) -> int:
    """The instructions in a file of callgrind's."""
    found = TOTAL.search(file.read_text(errors="replace"))
    if found is None:
        raise Failure(f"{file} has no total")
    return int(found.group(1))


CALLED = re.compile(r"^(c?fn)=\((\d+)\)(?: (.*))?$")
CALLS = re.compile(r"^calls=(\d+)")


def calls(file: Path, name: re.Pattern[str]) -> int:
    """How often the functions of a name were called."""
    names: dict[str, str] = {}
    callee, count = "", 0
    for line in file.read_text(errors="replace").splitlines():
        if found := CALLED.match(line):
            kind, number, text = found.groups()
            # A function is named where it comes first, and is a number after that.
            names.setdefault(number, text or "")
            if kind == "cfn":
                callee = names[number]
        elif (found := CALLS.match(line)) and name.match(callee):
            count += int(found.group(1))
    return count
