"""The catalog: what the entries of the providers say, and what is refused with it."""

import pytest

from blocks.batch import RequestForm
from blocks.catalog import PROVIDERS, option_help, option_table, provider_help
from blocks.connections import connection_for, key_options, limits_for
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
        Option("settle", "", kind=Kind.SECONDS, in_key=False).read(text)


# What changes the bytes of requests and yet no answer, and why.
NOT_IN_KEYS = {("anthropic", "cache"): "a cached text is read like any other"}


@every_option
def test_an_option_that_changes_requests_is_part_of_their_keys(
    provider: str, option: Option, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So an answer under another setting is never shown for one under this; only what is listed above is left out."""
    monkeypatch.setenv(PROVIDERS[provider].key_variable, "sk-a-key-of-the-tests")
    form = RequestForm("model-1", "You label reviews. " * 2000, {"type": "object", "properties": {}}, 500)
    bodies, keys = set(), set()
    for choice in option.choices:
        connection = connection_for(provider, None, {option.name: choice})
        bodies.add(PROVIDERS[provider].codec_for(form, connection.options).encode("id", "prompt"))
        keys.add(tuple(key_options(connection).items()))
    changes = len(bodies) > 1 and (provider, option.name) not in NOT_IN_KEYS
    assert len(keys) == (len(option.choices) if changes else min(1, len(option.choices)))


def test_a_default_that_is_given_is_no_other_question() -> None:
    """Nor does an option that a later version adds change any key."""
    assert key_options(connection_for("local", None, {"dialect": "anthropic", "effort": "default"})) == {}
    low = key_options(connection_for("local", None, {"dialect": "anthropic", "effort": "low", "cache": "off"}))
    assert low == {"effort": "low"}


@pytest.mark.parametrize(
    ("provider", "spellings"),
    [
        (
            "openai",
            [
                "https://api.example.com/openai/v1",
                "HTTPS://API.Example.COM/openai/v1/",
                "https://api.example.com:443/openai//v1",
                "https://api.example.com/./x/../openai/%761",
            ],
        ),
        ("openai", ["http://[::1]/v1", "http://[::1]:80/v1/"]),
        ("anthropic", ["https://a.example", "https://a.example/", "https://A.example:443/v1", "https://a.example/v1/"]),
        ("mistral", ["https://m.example/gate", "https://m.example/gate/v1"]),
        ("gemini", ["https://g.example", "https://g.example/v1beta", "https://g.example/v1"]),
    ],
)
def test_one_service_has_one_address(provider: str, spellings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """However it is spelled: the address is part of every key, so another one would be paid again."""
    monkeypatch.setenv(PROVIDERS[provider].key_variable, "sk-a-key-of-the-tests")
    connections = [connection_for(provider, spelling, {}, typed_url=spelling) for spelling in spellings]
    assert {connection.base_url for connection in connections} == {spellings[0]}
    assert len({connection.endpoint for connection in connections}) == 1


@pytest.mark.parametrize(
    "other",
    [
        "http://api.example.com/v1",
        "https://api.example.com:8443/v1",
        "https://api.example.com/V1",
        "https://api.example.com/%2Fv1",
    ],
)
def test_other_services_have_other_addresses(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another scheme, port or path is not taken for the same."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-key-of-the-tests")
    first, second = (connection_for("openai", url, {}, typed_url=url) for url in ("https://api.example.com/v1", other))
    assert first.endpoint != second.endpoint
