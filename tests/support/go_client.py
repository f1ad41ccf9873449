"""The Go program that calls the jobs API as the parsers' client does, for tests: ``tests/go``."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SECONDS = 120.0
_SOURCE = Path(__file__).parent.parent / "go"


@dataclass(frozen=True, kw_only=True)
class Group:
    """Equal calls over a number of connections.

    Attributes:
        name: What the result is called.
        urls: Connection ``i`` posts to ``urls[i % len(urls)]`` again and again.
        connections: How many.
        calls: Over all connections. 0: until all groups that have a number are done.
    """

    name: str
    urls: Sequence[str]
    connections: int
    calls: int = 0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a call came to.

    Attributes:
        code: Of the answer. 0: none has arrived.
        body: Of the answer.
        error: What Go's client reports. Empty: head and body have arrived.
    """

    code: int
    body: str
    error: str


Answers = dict[Answer, int]
"""Answers, and how often each came."""


@dataclass(frozen=True)
class GoClient:
    """The program, built."""

    program: Path

    def start(self, *groups: Group) -> "subprocess.Popen[str]":
        """Start the calls of all groups at the same time, and do not wait."""
        plan = {
            "Groups": [
                {"Name": g.name, "URLs": g.urls, "Connections": g.connections, "Calls": g.calls}
                for g in groups
            ]
        }
        process = subprocess.Popen(
            [self.program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(plan))
        process.stdin.close()
        process.stdin = None  # or `communicate` would flush it
        return process

    def run(self, *groups: Group) -> dict[str, Answers]:
        """Make the calls of all groups at the same time; the answers by group."""
        return results(self.start(*groups))


def results(process: "subprocess.Popen[str]") -> dict[str, Answers]:
    """Wait for the calls of a process that was started; the answers by group."""
    try:
        output, _ = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    assert process.returncode == 0
    return {result["Name"]: _answers(result["Answers"]) for result in json.loads(output)}


def _answers(counted: list[dict[str, Any]]) -> Answers:
    return {
        Answer(code=each["Code"], body=each["Body"], error=each["Error"]): each["Count"]
        for each in counted
    }


def build(folder: Path) -> GoClient:
    """Build the program; skip the test where Go is not installed, and fail it where CI runs."""
    go = shutil.which("go")
    if not go:
        reason = "Go is not installed: it is in Debian's package golang-go"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    program = folder / "parserclient"
    # The program needs the standard library only, so nothing is to be downloaded.
    environment = os.environ | {"GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": "-mod=mod"}
    command = [go, "build", "-o", str(program), "."]
    done = subprocess.run(
        command, cwd=_SOURCE, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return GoClient(program)
