"""A check, what it found, and running checks one after another without ever hanging in one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from blocks.errors import BatchwerkError, system_error
from blocks.printable import LONGEST_LINE, printable

TOLD_AFTER = 1.0  # seconds

log = logging.getLogger("batchwerk.checks")


class Level(StrEnum):
    """How much a finding matters: with a problem runs fail or wait, a warning is for people to judge."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """What a check found, and what to do about it."""

    check: str
    level: Level
    what: str
    advice: str = ""

    def line(self) -> str:
        """For people."""
        advice = f" → {self.advice}" if self.advice else ""
        return printable(f"{f'{self.level}:':<9}{self.check:<8} {self.what}{advice}", LONGEST_LINE)

    def summary(self) -> dict[str, str]:
        """For `--json`."""
        return {"check": self.check, "level": str(self.level), "what": self.what, "advice": self.advice}


Look = Callable[[], Iterable[Finding]]


@dataclass(frozen=True)
class Check:
    """One thing to look at. What it raises becomes a problem."""

    name: str
    about: str  # what is said while it takes long
    seconds: float  # after which it is given up
    look: Look


def run_checks(checks: Iterable[Check], tell: Callable[[str], None]) -> Iterator[Finding]:
    """The findings of all checks, as they come. `tell`: gets a line about each check that takes long."""
    for check in checks:
        yield from _run(check, tell)


def _run(check: Check, tell: Callable[[str], None]) -> list[Finding]:
    """In a thread that is left alone if it hangs: nothing else can end a look at a file system that is away."""
    found: list[Finding] = []
    ended = threading.Event()

    def look() -> None:
        try:
            found.extend(list(check.look()))
        except BaseException as error:  # noqa: BLE001  # a check that fails is a finding
            found.append(_failed(check.name, error))
        ended.set()

    threading.Thread(target=look, daemon=True, name=check.name).start()
    if not ended.wait(min(TOLD_AFTER, check.seconds)):
        tell(f"checking {check.about} …")
        if not ended.wait(check.seconds):
            what = f"no end of checking {check.about} within {check.seconds:.0f} s"
            return [
                Finding(check.name, Level.PROBLEM, what, "run doctor again; if it stays so, look at what hangs there")
            ]
    return found


def _failed(name: str, error: BaseException) -> Finding:
    error = system_error(error) if isinstance(error, OSError) else error
    if isinstance(error, BatchwerkError):
        return Finding(name, Level.PROBLEM, error.message, error.next_step)
    log.debug("the check %s failed", name, exc_info=error)
    what = f"the check itself failed: {type(error).__name__}: {error}"
    return Finding(name, Level.PROBLEM, what, "please report it")


def summary(findings: Iterable[Finding]) -> dict[str, Any]:
    """For `--json`: the findings, and the exit status."""
    listed = list(findings)
    return {"findings": [each.summary() for each in listed], "exit": exit_status(listed)}


def exit_status(findings: Iterable[Finding]) -> int:
    """1 if there is a problem."""
    return int(any(each.level is Level.PROBLEM for each in findings))
