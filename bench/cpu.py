"""Reads how much CPU time and memory processes have taken, and how busy a core was."""

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_NS_PER_TICK = 1_000_000_000 // _TICKS_PER_S


def process_cpu_ns(pid: int) -> int:
    """User and system time of all threads of a process: utime + stime, at the clock's resolution.

    /proc/PID/stat shows the same sum rounded to 10 ms; the kernel's CPU clock of the process (see
    clock_getcpuclockid(3), whose encoding this is) has it in nanoseconds.
    """
    return time.clock_gettime_ns((~pid << 3) | 2)


def family(pid: int) -> list[int]:
    """A process and its living descendants, for a server with worker processes."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(found for child in children for found in family(int(child)))]


def resident_bytes(pids: Iterable[int]) -> int:
    """The memory that processes hold (RSS)."""
    pages = (int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return sum(pages) * _PAGE_BYTES


def core_busy_ns(core: int) -> int:
    """The time in which a core did anything at all (resolution: 10 ms)."""
    prefix = f"cpu{core} "
    with Path("/proc/stat").open() as stat:
        fields = next(line for line in stat if line.startswith(prefix)).split()
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(f) for f in fields[1:9])
    return (user + nice + system + irq + softirq + steal) * _NS_PER_TICK


@dataclass(frozen=True)
class Usage:
    """What was used between two points in time, in nanoseconds.

    `foreign_ns` is what others took of the proxy's core: the noise of this measurement.
    """

    wall_ns: int
    proxy_ns: int
    harness_ns: int
    foreign_ns: int


class Meter:
    """Measures the proxy under test and the harness (backends and this process) over a window."""

    def __init__(self, proxy: Sequence[int], backends: Iterable[int], proxy_core: int) -> None:
        self._proxy = proxy
        self._harness = [*backends, os.getpid()]
        self._core = proxy_core
        self._begin = self._read()

    def start(self) -> None:
        self._begin = self._read()

    def stop(self) -> Usage:
        wall, proxy, harness, core = (
            now - then for now, then in zip(self._read(), self._begin, strict=True)
        )
        return Usage(wall, proxy, harness, foreign_ns=max(0, core - proxy))

    def _read(self) -> tuple[int, int, int, int]:
        return (
            time.monotonic_ns(),
            sum(map(process_cpu_ns, self._proxy)),
            sum(map(process_cpu_ns, self._harness)),
            core_busy_ns(self._core),
        )
