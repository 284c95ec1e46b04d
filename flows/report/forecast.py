"""The expected cost of a run."""

from __future__ import annotations

from flows.domain.estimate import Estimate, Unsent, estimate
from flows.domain.ledger import Ledger
from flows.domain.ranges import Ranges, size
from flows.domain.tokens import expected_output_tokens
from flows.engine.recorder import now
from flows.engine.run import Run
from flows.spec import Spec
from flows.storage.requests import FrozenRequests


def estimate_unsent(spec: Spec, ledger: Ledger, wanted: Ranges, requests: FrozenRequests) -> Estimate:
    """The estimated tokens and cost of all unsent requests."""
    pieces, form = [(piece.start, piece.stop) for piece in ledger.unsent(wanted)], spec.form
    unsent = Unsent(
        requests=size(pieces),
        input_tokens=sum(requests.tokens(start, stop) for start, stop in pieces),
        output_tokens=expected_output_tokens(form.schema, form.max_output_tokens),
        max_output_tokens=form.max_output_tokens,
    )
    return estimate(unsent, spec.price_on(now().date()), ledger, emulated=spec.connection.emulated)


def estimate_run(run: Run) -> Estimate:
    """The estimate for an opened run that has not sent anything yet."""
    with run.recorder.reading() as ledger:
        return estimate_unsent(run.config.spec, ledger, run.wanted, run.requests)
