"""`make bench`: what the pipeline costs, beside a bare loop and beside its peers, in tables.

python -m tests.bench [--only SECTION …] [--sizes ROWS …] [--runs N] [--markdown FILE] [--quick]

Figures are for comparing within one run on one machine that does nothing else: medians where there are several. The
emulator and Prefect's server are processes of their own. Nothing is asserted but that no row is lost.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from tests.bench.job import JOB
from tests.bench.latency import latency
from tests.bench.nightly import nightly
from tests.bench.peers.section import peers
from tests.bench.plan import Plan
from tests.bench.series import on_postgresql, on_sqlite
from tests.bench.sheets import Sheet

SECTIONS: dict[str, Callable[[Plan], Iterator[Sheet]]] = {
    "sqlite": on_sqlite,
    "postgresql": on_postgresql,
    "latency": latency,
    "nightly": nightly,
    "peers": peers,
}
SIZES, QUICK_SIZES = (200_000, 2_000_000), (2_000, 8_000)
RUNS = 5
WIDTH = 140


def main() -> None:
    """Measure the sections that were asked for, print their tables and write them down as they come."""
    wanted = _arguments()
    console, sheets = Console(width=WIDTH), [_machine()]
    with TemporaryDirectory(prefix="batchwerk-bench-") as folder:
        plan = Plan(
            place=Path(folder),
            cache=wanted.cache.absolute(),
            sizes=tuple(wanted.sizes or (QUICK_SIZES if wanted.quick else SIZES)),
            runs=wanted.runs or (1 if wanted.quick else RUNS),
            quick=wanted.quick,
            console=Console(stderr=True, width=WIDTH),
        )
        plan.job.write_text(JOB)
        for name in wanted.only or SECTIONS:
            plan.say(f"{name} …")
            for sheet in SECTIONS[name](plan):
                sheets.append(sheet)
                console.print(sheet.table())
                if wanted.markdown is not None:
                    _write(wanted.markdown, sheets)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="What the pipeline costs, in tables.")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "batchwerk-bench"
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--sizes", nargs="+", type=int, metavar="ROWS", help=f"default {SIZES}; nightly: the largest")
    parser.add_argument("--runs", type=int, help=f"of each size (default {RUNS})")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the same tables there as Markdown")
    parser.add_argument("--cache", type=Path, default=cache, metavar="FOLDER", help="keeps the peers' environments")
    parser.add_argument("--quick", action="store_true", help="small, to see that it works; the figures mean nothing")
    return parser.parse_args()


def _machine() -> Sheet:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    said = (
        f"{os.cpu_count()} cores, {memory:.0f} GB, Python {platform.python_version()}, Prefect {version('prefect')},"
        f" load {os.getloadavg()[0]:.1f} when it began, {time.strftime('%Y-%m-%d')}."
    )
    return Sheet("Benchmark", note=said)


def _write(path: Path, sheets: list[Sheet]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(sheet.markdown() for sheet in sheets), encoding="utf-8")


if __name__ == "__main__":
    main()
