"""The expected cost of a run, before it begins and while it goes on."""

from __future__ import annotations

from flows.domain.batches import State
from flows.domain.estimate import Estimate, Outlook, Unsent, estimate, outlook
from flows.domain.ledger import Ledger
from flows.domain.ranges import Ranges, size
from flows.domain.tokens import expected_output_tokens
from flows.engine.recorder import now
from flows.engine.run import Run
from flows.spec import Spec
from flows.storage.requests import FrozenRequests


def estimate_unsent(spec: Spec, ledger: Ledger, wanted: Ranges, requests: FrozenRequests) -> Estimate:
    """The estimated tokens and cost of all unsent requests."""
    unsent, price = _unsent(spec, ledger, wanted, requests), spec.price_on(now().date())
    return estimate(unsent, price, ledger, emulated=spec.connection.emulated)


def outlook_of(spec: Spec, ledger: Ledger, wanted: Ranges, requests: FrozenRequests) -> Outlook:
    """What the output has cost and will have cost, while batches are under way."""
    unsent, price = _unsent(spec, ledger, wanted, requests), spec.price_on(now().date())
    return outlook(unsent, price, ledger, emulated=spec.connection.emulated)


def _unsent(spec: Spec, ledger: Ledger, wanted: Ranges, requests: FrozenRequests) -> Unsent:
    """Those of batches that are decided and not begun included."""
    reserved = [piece for batch in ledger.in_state(State.RESERVED) for piece in batch.slices]
    pieces, form = [(piece.start, piece.stop) for piece in [*ledger.unsent(wanted), *reserved]], spec.form
    return Unsent(
        requests=size(pieces),
        input_tokens=sum(requests.tokens(start, stop) for start, stop in pieces),
        output_tokens=expected_output_tokens(form.schema, form.max_output_tokens),
        max_output_tokens=form.max_output_tokens,
    )


def estimate_run(run: Run) -> Estimate:
    """The estimate for an opened run that has not sent anything yet."""
    with run.recorder.reading() as ledger:
        return estimate_unsent(run.config.spec, ledger, run.wanted, run.requests)
