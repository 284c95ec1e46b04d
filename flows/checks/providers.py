"""The providers: keys, prices and clocks. No key is shown or sent anywhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta

from blocks.catalog import LOCAL, PROVIDERS
from blocks.errors import ProviderError
from blocks.printable import counted
from blocks.transport import server_date
from flows.checks.check import Finding, Level
from flows.spec import Spec
from flows.storage.price_files import price_table

OLD_PRICES = timedelta(days=180)
CLOCK_IS_OFF, CLOCK_IS_WRONG = 30.0, 300.0  # seconds
CLOCK_SECONDS = 5.0  # for an answer


def check_keys() -> Iterator[Finding]:
    """Which providers have a key in the environment."""
    held = {name: os.environ.get(entry.key_variable, "") for name, entry in PROVIDERS.items()}
    for name, key in held.items():
        if key.strip() and not (key.strip().isascii() and key.strip().isprintable()):
            what = f"{PROVIDERS[name].key_variable} has a character that no key has, such as a line break"
            yield Finding("keys", Level.PROBLEM, what, "copy the key again")
    there = [f"{PROVIDERS[name].key_variable} ({name})" for name, key in held.items() if key.strip()]
    others = ", ".join(PROVIDERS[name].key_variable for name, key in held.items() if not key.strip())
    if there:
        without = f"; not: {others}" if others else ""
        yield Finding("keys", Level.OK, f"in the environment: {', '.join(there)}{without}")
    else:
        advice = f"export one, name a saved block as --provider type/name, or try without: --provider {LOCAL}"
        yield Finding("keys", Level.WARNING, f"no key in the environment: {others}", advice)


def check_prices(specs: Iterable[Spec], today: date) -> Iterator[Finding]:
    """The price table, and whether it has the models of an output."""
    rows = price_table()
    models, newest = {(row.provider, row.model) for row in rows}, max(date.fromisoformat(row.checked) for row in rows)
    what = f"prices of {counted(len(models), 'model')}, the newest of {newest}"
    if today - newest > OLD_PRICES:
        yield Finding("prices", Level.WARNING, what, "compare data/prices.csv with the providers' price pages")
    else:
        yield Finding("prices", Level.OK, what)
    for spec in specs:
        if spec.price_on(today).rates(0) is None:
            what = f"no price for {spec.model} at {spec.connection.provider}: its costs are shown as unpriced"
            yield Finding("prices", Level.WARNING, what, "name its prices in a file with --prices")


def addresses(specs: Iterable[Spec]) -> dict[str, list[str]]:
    """Where to ask for the time: of the output's provider, of those with a key, or of any one that answers."""
    used = {spec.connection.base_url for spec in specs if not spec.connection.emulated}
    used |= {entry.base_url for entry in PROVIDERS.values() if os.environ.get(entry.key_variable, "").strip()}
    return {url: [url] for url in sorted(used)} or {"any": [entry.base_url for entry in PROVIDERS.values()]}


def check_clock(
    groups: dict[str, list[str]], now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Iterator[Finding]:
    """This machine's clock against the providers' own; of each group of addresses one has to answer."""
    for group in groups.values():
        yield _clock(group, now)


def _clock(urls: list[str], now: Callable[[], datetime]) -> Finding:
    problem = ""
    for url in urls:
        try:
            theirs = server_date(url, CLOCK_SECONDS)
        except ProviderError as error:
            problem = problem or error.message
            continue
        if theirs is not None:
            return _compared(url, (now() - theirs).total_seconds())
        problem = problem or f"{url} does not say what time it is"
    return Finding("clock", Level.WARNING, problem, "no run gets further without a network; check it, and the proxy")


def _compared(url: str, ahead: float) -> Finding:
    words = f"{abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} {url}"
    if abs(ahead) < CLOCK_IS_OFF:
        return Finding("clock", Level.OK, f"as at {url}, within {CLOCK_IS_OFF:.0f} s")
    level = Level.WARNING if abs(ahead) < CLOCK_IS_WRONG else Level.PROBLEM
    return Finding("clock", level, words, "set it, and let it be kept: timedatectl set-ntp true")
