"""A run that may kill itself at a place: what an attack starts in a process of its own, with time running faster."""

from __future__ import annotations

import sys

import orjson
import stamina

from blocks import downloads
from blocks.batch import PollPlan
from blocks.errors import BatchwerkError
from blocks.providers.anthropic.batches import Anthropic
from blocks.providers.gemini.batches import Gemini
from blocks.providers.holysheep.batches import HolySheep
from blocks.providers.mistral.batches import Mistral
from blocks.providers.openai.batches import OpenAI
from blocks.retries import ATTEMPTS
from flows.domain import breaker, vanishing
from tests.flows.killed import plan_death
from tests.flows.undecorated import enrich

POLLING = PollPlan(first=0.05, factor=1.5, longest=0.2, patience=600.0)


def main(place: str, parameters: str) -> None:
    """Run until the place, or to the end; prints the exit status and the attempts, or fails with a sentence."""
    breaker.FIRST_PAUSE = 0.1
    breaker.MAX_PAUSE = 0.5
    vanishing.FRESH = vanishing.PAUSE = 0.5
    vanishing.LOOKS, vanishing.SPAN = 2, 1.0
    downloads.LONGEST_LINE, downloads.ENDLESS_LINE = 1 << 20, 1 << 22
    for client in (Anthropic, Gemini, HolySheep, Mistral, OpenAI):
        client.polling = POLLING
    if place:
        plan_death(place)
    with stamina.set_testing(True, attempts=ATTEMPTS):
        try:
            figures = enrich(**orjson.loads(parameters))
        except BatchwerkError as error:
            sys.exit(str(error))
    sys.stdout.write(orjson.dumps({"exit": int(figures.exit), **figures.details()}).decode())
