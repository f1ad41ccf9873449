"""What processes cost, as Linux counts it in /proc: CPU-seconds and the most memory each had.

A process and all that it starts are looked at every second. What a child took is the parent's to
tell once it was waited for, so no child is too short to count.
"""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
POLL_SECONDS = 1.0


@dataclass
class Cost:
    """Of one part, over all of its lives.

    Attributes:
        own: CPU-seconds of the process itself.
        children: CPU-seconds of all that it started.
        peak: The most memory that the process itself had, in MB.
        child_peak: The most that one of its children had.
        children_at_once: The most children that it had at a time.
    """

    own: float = 0.0
    children: float = 0.0
    peak: float = 0.0
    child_peak: float = 0.0
    children_at_once: int = 0


@dataclass(frozen=True)
class _Stat:
    parent: int
    own: float
    waited_for: float


@dataclass
class Costs:
    """Watches parts, each known by its name and its process as it is at the time."""

    pids: dict[str, int] = field(default_factory=dict)
    _now: dict[str, Cost] = field(default_factory=dict)
    _before: dict[str, Cost] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Costs":
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def follow(self, name: str, pid: int) -> None:
        """A part begins, or begins again: what it cost before is kept."""
        with self._lock:
            if name in self.pids:
                self._before[name] = self._sum(name)
                self._now.pop(name, None)
            self.pids[name] = pid

    def all(self) -> Mapping[str, Cost]:
        """What each part cost until now."""
        self._look()
        with self._lock:
            return {name: self._sum(name) for name in self.pids}

    def _sum(self, name: str) -> Cost:
        then, now = self._before.get(name, Cost()), self._now.get(name, Cost())
        return Cost(
            own=then.own + now.own,
            children=then.children + now.children,
            peak=max(then.peak, now.peak),
            child_peak=max(then.child_peak, now.child_peak),
            children_at_once=max(then.children_at_once, now.children_at_once),
        )

    def _watch(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self._look()

    def _look(self) -> None:
        stats = _stats()
        with self._lock:
            for name, pid in self.pids.items():
                if pid in stats:
                    self._now[name] = _cost(pid, stats, self._now.get(name, Cost()))


def _cost(pid: int, stats: Mapping[int, _Stat], before: Cost) -> Cost:
    alive = _descendants(pid, stats)
    children = stats[pid].waited_for + sum(stats[p].own + stats[p].waited_for for p in alive)
    return Cost(
        own=stats[pid].own,
        # A child that has ended but was not waited for yet is looked at the next time.
        children=max(before.children, children),
        peak=max(before.peak, _peak(pid)),
        child_peak=max(before.child_peak, *map(_peak, alive), 0.0),
        children_at_once=max(before.children_at_once, len(alive)),
    )


def _stats() -> dict[int, _Stat]:
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                text = (folder / "stat").read_text()
            except OSError:  # it has ended meanwhile
                continue
            fields = text.rpartition(")")[2].split()
            own, waited_for = (
                (int(fields[first]) + int(fields[first + 1])) / TICK for first in (11, 13)
            )
            found[int(folder.name)] = _Stat(int(fields[1]), own, waited_for)
    return found


def _descendants(pid: int, stats: Mapping[int, _Stat]) -> list[int]:
    children: dict[int, list[int]] = {}
    for child, stat in stats.items():
        children.setdefault(stat.parent, []).append(child)
    found, left = [], list(children.get(pid, ()))
    while left:
        child = left.pop()
        found.append(child)
        left += children.get(child, ())
    return found


def _peak(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    of = next((line.split()[1] for line in lines if line.startswith("VmHWM")), "0")
    return int(of) / 1024
