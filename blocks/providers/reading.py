"""How the answers of one batch are read: each line by itself, and at the end whether that was all of them.

What a provider answered was paid, whether we can read it or not: a line that can't be read is an answer of unknown
cost, never a request without one. And before anything counts as missing, what was read is compared with what the
provider's own counters promise: files come late, cut short, or as a proxy's page.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from blocks.batch import PORTABLE_ID, Answer, Failure, FailureKind
from blocks.downloads import LONGEST_LINE, Overlong
from blocks.errors import UNCOUNTED, Incomplete
from blocks.providers.lenient import is_count, mapping, string
from blocks.tolerant import parse

log = logging.getLogger("batchwerk.providers")

ReadRow = Callable[[Any], Answer | None]  # of a line's JSON; None: it names no request
UNREADABLE = Failure(FailureKind.UNREADABLE, "unreadable", "its result line can't be read")
TOO_LONG = Failure(FailureKind.UNREADABLE, "too_long", f"its result line has more than {LONGEST_LINE:,} bytes")


class Reading:
    """Reads the answers of a batch and counts them. `id_name`: the member of a row, or of its metadata, with its id.

    `promised`: answers that the provider counts, failures included; None if it does not say. `only_run`: it does not
    count requests that were not run. `where`: in messages.
    """

    def __init__(
        self,
        provider: str,
        where: str,
        promised: int | None,
        *,
        id_name: str = "custom_id",
        only_run: bool = False,
    ) -> None:
        self._provider = provider
        self._where = where
        self.promised = promised
        self._id_name = id_name
        self._only_run = only_run
        self._named = re.compile(rb'"%b"\s*:\s*"(%b)"' % (id_name.encode(), PORTABLE_ID.encode()))
        self._ids: set[str] = set()
        self._nameless = self._objects = 0

    def lines(self, lines: Iterable[bytes], read: ReadRow) -> Iterator[Answer]:
        """An answer for each line of a file."""
        for line in lines:
            try:
                row = None if isinstance(line, Overlong) else parse(line)
            except (ValueError, RecursionError):
                row = None
            yield self._row(row, read) if row is not None else self._unreadable(line)

    def rows(self, rows: list[Any], read: ReadRow) -> Iterator[Answer]:
        """The same for rows that come within another answer, taken out of the list: it may have a hundred megabytes."""
        rows.reverse()
        while rows:
            yield self._row(rows.pop(), read)

    def _row(self, row: Any, read: ReadRow) -> Answer:
        self._objects += isinstance(row, dict)
        named = self._name_of(row)  # which is counted: the answer may say that it is another one's
        try:
            answer = read(row) or Answer(named, None, None, UNREADABLE)
        except Exception as error:  # noqa: BLE001  # no answer may keep others from being read, however strange it is
            log.warning("%s: a line of %s can't be read (%s)", self._provider, self._where, type(error).__name__)
            answer = Answer(named, None, None, UNREADABLE)
        return self._counted(named or answer.custom_id, answer)

    def _name_of(self, row: Any) -> str:
        members = mapping(row)
        return string(members.get(self._id_name)) or string(mapping(members.get("metadata")).get(self._id_name))

    def _unreadable(self, line: bytes) -> Answer:
        """Texts of models are within strings, where quotes are escaped: what looks like the name of a row is it."""
        found = self._named.search(line)
        named = found[1].decode() if found else ""
        return self._counted(named, Answer(named, None, None, TOO_LONG if isinstance(line, Overlong) else UNREADABLE))

    def _counted(self, named: str, answer: Answer) -> Answer:
        if not named:
            self._nameless += 1
        elif not self._only_run or answer.failure is None or answer.failure.kind is not FailureKind.NOT_RUN:
            self._ids.add(named)
        return answer

    def check(self, *, late: bool = False) -> None:
        """Raises Incomplete if what was read is not all that there is. `late`: a file that was promised has no name."""
        if self._nameless:
            log.warning("%s: %d lines of %s name no request", self._provider, self._nameless, self._where)
        if self._nameless and not self._ids and not (self.promised and self._objects >= self.promised):
            # More likely the message of a proxy than results.
            raise self.incomplete("has results in which no line names a request")
        if not self.lacking:
            return
        counted = "does not say how many it counts" if self.promised is None else f"counts {self.promised:,}"
        raise self.incomplete(f"has {self._read:,} answers and {counted}", 0 if late else self.lacking)

    @property
    def lacking(self) -> int:
        """How many answers the provider counts that were not read; if it does not count them, whether any was."""
        if self.promised is None:
            return 0 if self._ids else UNCOUNTED
        return max(0, self.promised - self._read)

    @property
    def _read(self) -> int:
        return len(self._ids) + self._nameless

    def incomplete(self, what: str, fewer: int = 0) -> Incomplete:
        """The error for a batch whose answers are not all there; asking again at once would not find more."""
        error = Incomplete(f"{self._provider}: {self._where} {what}", fewer=fewer, provider=self._provider)
        error.worth_repeating = False
        return error


def promised_by(counts: Mapping[str, Any], *names: str) -> int | None:
    """The sum of a batch's counters of what was done; None if one of them is no count."""
    found = [count for name in names if is_count(count := counts.get(name))]
    return sum(found) if len(found) == len(names) else None


def file_of(value: Any, reading: Reading) -> str:
    """The id of a file, also where it stands in an object; empty for none. Raises Incomplete for what is neither."""
    if isinstance(value, str) or not value:
        return value or ""
    if isinstance(value, list) and len(value) == 1:
        return file_of(value[0], reading)
    if named := next((found for name in ("id", "file_id", "name") if (found := string(mapping(value).get(name)))), ""):
        return named
    raise reading.incomplete("names the file of its answers in a way that is not understood")
