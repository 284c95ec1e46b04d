"""Commands on prices and bills: thin, like all of the command line."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import orjson
import typer

from blocks.printable import printable_lines

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
CHECK = "check"


def prices(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="Models to list, named in full or in part; or `check`, which compares all with genai-prices.",
        ),
    ] = None,
    provider: Annotated[str | None, typer.Option(metavar="NAME", help="List the prices of this provider only.")] = None,
    json: Json = False,
) -> int:
    """List the price table, or compare it with the package genai-prices."""
    from flows.accounts.price_check import check_prices  # noqa: PLC0415
    from flows.accounts.price_listing import listing  # noqa: PLC0415
    from flows.storage.price_files import price_table  # noqa: PLC0415

    if models == [CHECK]:
        found = check_prices([row for row in price_table() if provider in {None, row.provider}])
        _show(found.summary(), found.text(), as_json=json)
        return found.exit
    listed = listing(models or [], provider, datetime.now(UTC).date())
    _show(listed.summary(), listed.text(), as_json=json)
    return 0


def reconcile(
    outputs: Annotated[list[str], typer.Argument(metavar="OUTPUT...", help="All outputs that one key paid for.")],
    usage: Annotated[
        list[str],
        typer.Option(metavar="FILE", help="Usage or cost export of the provider; can be given several times."),
    ],
    tolerance: Annotated[
        float, typer.Option(metavar="SHARE", min=0, max=1, help="Share by which a line may differ.")
    ] = 0.01,
    json: Json = False,
) -> int:
    """Compare the books of outputs with the provider's bill; exit status 1 if they do not agree."""
    from flows.accounts.bills import reconcile_outputs  # noqa: PLC0415

    found = reconcile_outputs(
        [Path(output) for output in outputs], [Path(file) for file in usage], Decimal(str(tolerance))
    )
    _show(found.summary(), found.text(), as_json=json)
    return found.exit


def _show(summary: object, text: str, *, as_json: bool) -> None:
    typer.echo(printable_lines(orjson.dumps(summary).decode() if as_json else text))


def add_commands(app: typer.Typer) -> None:
    """Make them commands of `batchwerk`."""
    app.command()(prices)
    app.command()(reconcile)
