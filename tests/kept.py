"""What each test would read anew, for longer than most tests take, is read once a process and kept."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from httpx._transports import default

from blocks import transport, vocabularies
from blocks.batch import RequestForm
from blocks.vocabularies import Framing, vocabulary_of

LATE = ("encodings.idna", "httpcore", "numpy.ma")  # imported by the first call, and by DuckDB
ORDINARY = Framing("o200k_base", per_message=0, per_request=0)  # what the models of most jobs count with


def _forget_nothing() -> None:
    """Instead of letting a vocabulary's memory go once a plan is made."""


default.create_ssl_context = cache(default.create_ssl_context)  # type: ignore[attr-defined]  # httpx's own
vocabularies.forget_vocabularies = _forget_nothing


def read_ahead() -> None:
    """Late modules, certificates and the ordinary vocabulary, so that forked processes have them. Starts no thread."""
    for module in LATE:
        import_module(module)
    transport._trusted()
    default.create_ssl_context(verify=True, cert=None, trust_env=True)  # type: ignore[attr-defined]
    vocabulary = vocabulary_of({"": ORDINARY}, RequestForm(model="any", schema={"enum": ["positive"]}))
    if vocabulary is not None:
        vocabulary.tokens_of(["Great battery"])
