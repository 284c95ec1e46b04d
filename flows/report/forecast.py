"""The expected cost of a run."""

from __future__ import annotations

from flows.domain.estimate import Estimate, estimate
from flows.domain.ledger import Ledger
from flows.domain.ranges import Ranges, size
from flows.domain.tokens import expected_output_tokens
from flows.engine.run import Run
from flows.spec import Spec
from flows.storage.plan import Plan
from flows.storage.requests import FrozenRequests


def estimate_unsent(spec: Spec, plan: Plan, ledger: Ledger, wanted: Ranges, requests: FrozenRequests) -> Estimate:
    """The estimated tokens and cost of all unsent requests."""
    unsent = [(piece.start, piece.stop) for piece in ledger.unsent(wanted)]
    return estimate(
        requests=size(unsent),
        size=sum(requests.total(start, stop) for start, stop in unsent),
        tokens_per_byte=plan.tokens_per_byte,
        output_tokens=expected_output_tokens(spec.form.schema, spec.form.max_output_tokens),
        price=spec.price,
        ledger=ledger,
        emulated=spec.connection.emulated,
    )


def estimate_run(run: Run) -> Estimate:
    """The estimate for an opened run that has not sent anything yet."""
    with run.recorder.reading() as ledger:
        return estimate_unsent(run.config.spec, run.plan, ledger, run.wanted, run.requests)
