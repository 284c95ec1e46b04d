"""Parameters are declared once: what derives from `Settings` has every one of them, with its bounds and its help."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from blocks.errors import UsageError
from flows.settings import Settings, parameter_table, read_settings, settings_docstring, settings_signature

REQUIRED = {"input": "a.parquet", "output": "b.parquet", "job": "j.yaml", "provider": "local"}


def settings(**more: Any) -> Settings:
    return read_settings({**REQUIRED, **more})


def test_every_parameter_has_help_that_ends_with_a_full_stop() -> None:
    """The help is shown in three places, so it is a sentence of its own."""
    assert [row.option for row in parameter_table() if not row.help.endswith(".")] == []
    assert len(parameter_table()) == len(Settings.model_fields)


def test_the_table_shows_values_and_defaults_as_one_would_type_them() -> None:
    """One row per parameter: option, values, default."""
    rows = {row.option: (row.values, row.default) for row in parameter_table()}
    assert rows["INPUT"] == ("text", "")
    assert rows["--batch-size"] == ("a whole number, at least 1, or auto", "5000")
    assert rows["--max-failed"] == ("a number, at least 0 and at most 1", "0")
    assert rows["--poll-interval"] == ("a number, above 0", "")
    assert rows["--compression"] == ("zstd, snappy, gzip or none", "zstd")
    assert rows["--memory-limit"] == ("a size such as 100MB or 2GB", "100MB")
    assert rows["--retry-failed"] == ("flag", "")
    assert rows["--option"] == ("KEY=VALUE", "")


def test_each_default_in_the_table_is_accepted_and_means_the_default() -> None:
    """The command line passes them on as text."""
    shown = {row.option[2:].replace("-", "_"): row.default for row in parameter_table() if row.default}
    assert settings(**shown) == settings()


def test_signature_and_docstring_have_every_parameter_in_order() -> None:
    """A flow built on them takes what `Settings` takes."""
    assert list(settings_signature().parameters) == list(Settings.model_fields)
    lines = settings_docstring("Summary.").splitlines()
    assert [line.split(":")[0].strip() for line in lines[3:]] == list(Settings.model_fields)


@pytest.mark.parametrize(
    ("given", "text"),
    [("0.5", "0.5"), (600, "600"), (600.0, "600"), (0.25, "0.25"), (True, "true"), (False, "false")],
)
def test_numbers_and_booleans_in_options_become_text(given: object, text: str) -> None:
    """A form sends JSON; an option's value is text everywhere else."""
    assert settings(options={"latency": given}).options == {"latency": text}


@pytest.mark.parametrize("value", [None, [1], {"a": 1}])
def test_option_values_that_are_no_scalars_are_refused(value: object) -> None:
    """They would mean nothing to a provider."""
    with pytest.raises(UsageError, match="--option must be KEY=VALUE"):
        settings(options={"latency": value})


def test_batch_size_is_a_number_or_auto() -> None:
    """Numbers may come as text."""
    assert [settings(batch_size=given).batch_size for given in (7, "7", "auto")] == [7, 7, "auto"]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"batch_size": 0}, "--batch-size must be a whole number, at least 1, or auto"),
        ({"max_in_flight": "many"}, "--max-in-flight must be a whole number, at least 1"),
        ({"max_failed": 1.1}, "--max-failed must be a number, at least 0 and at most 1"),
        ({"wait": -1}, "--wait must be a number, at least 0"),
        ({"wait": "nan"}, "--wait must be a number, at least 0"),
        ({"poll_interval": 0}, "--poll-interval must be a number, above 0"),
        ({"on_unknown": "ask"}, "--on-unknown must be fail or resubmit"),
        ({"where": ""}, "--where must be text that is not empty"),
        ({"memory_limit": "lots"}, "--memory-limit must be a size such as 100MB or 2GB"),
        ({"limt": 3}, "there is no parameter 'limt'"),
        ({"limit": 0, "max_attempts": 0}, "--max-attempts must be a whole number, at least 1; --limit must be"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_in_the_words_of_the_table(wrong: Mapping[str, Any], sentence: str) -> None:
    """One sentence for each parameter, all of them at once."""
    with pytest.raises(UsageError) as caught:
        settings(**wrong)
    assert caught.value.message.startswith(sentence)


def test_a_missing_parameter_is_named() -> None:
    """As it is called on the command line."""
    with pytest.raises(UsageError, match=r"^INPUT is missing; --job is missing\n"):
        read_settings({name: value for name, value in REQUIRED.items() if name not in {"input", "job"}})


def test_settings_survive_json() -> None:
    """The state directory and the flow run keep them as JSON; `cancel` reads them back."""
    before = settings(options={"latency": 1}, wait=0, batch_size="auto")
    assert read_settings(before.model_dump(mode="json")) == before
    assert before.input == Path("a.parquet")
