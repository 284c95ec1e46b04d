"""The catalog: what the entries of the providers say, and what is refused with it."""

import pytest

from blocks.catalog import PROVIDERS, option_help, option_table, provider_help
from blocks.connections import connection_for, limits_for
from blocks.entries import LIMIT_OPTIONS, Kind, Option
from blocks.errors import UsageError

OPTIONS = [(name, option) for name, entry in PROVIDERS.items() for option in entry.all_options()]
every_option = pytest.mark.parametrize(
    ("provider", "option"), OPTIONS, ids=[f"{name}-{option.name}" for name, option in OPTIONS]
)


@every_option
def test_a_value_that_an_option_does_not_take_is_refused(
    provider: str, option: Option, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is sent, with what it takes instead."""
    monkeypatch.setenv(PROVIDERS[provider].key_variable, "sk-a-key-of-the-tests")
    with pytest.raises(UsageError, match=f"--option {option.name}=odd") as caught:
        connection_for(provider, None, {option.name: "odd"})
    assert all(value in str(caught.value) for value in option.choices or [option.kind.value])


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_option_of_another_provider_is_refused(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the names of those that the provider has."""
    entry = PROVIDERS[provider]
    monkeypatch.setenv(entry.key_variable, "sk-a-key-of-the-tests")
    with pytest.raises(UsageError, match="--option odd is not known") as caught:
        connection_for(provider, None, {"odd": "1"})
    assert all(option.name in caught.value.next_step for option in entry.all_options())


@every_option
def test_an_option_is_in_the_help_and_in_the_table(provider: str, option: Option) -> None:
    """With a sentence that explains it, and its default."""
    (row,) = [row for row in option_table() if (row.provider, row.option) == (provider, option.name)]
    assert row.help.endswith(".")
    assert row.default
    assert row.key_variable == PROVIDERS[provider].key_variable
    assert provider in provider_help()
    assert option.name in option_help()


def test_an_option_replaces_a_limit() -> None:
    """Each by the field of its name; numbers that are none are refused."""
    for option in LIMIT_OPTIONS:
        connection = connection_for("local", None, {option.name: "7"})
        assert getattr(limits_for(connection), option.name) == 7
        for text in ("0", "-1", "1.5", "a"):
            with pytest.raises(UsageError, match=f"{option.name}={text} is not a whole number above 0"):
                option.read(text)


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "1e9", "x", ""])
def test_seconds_are_a_number_that_is_not_negative(text: str) -> None:
    """Those that no run could wait for are refused too."""
    with pytest.raises(UsageError, match="is not a number of seconds"):
        Option("settle", "", kind=Kind.SECONDS).read(text)
