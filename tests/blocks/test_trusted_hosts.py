"""Keys go where their owner said, and nowhere else: not where a form, a file or a proxy says."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from pydantic import SecretStr

from blocks.batch import Connection
from blocks.catalog import PROVIDERS
from blocks.clients import open_access
from blocks.connections import connection_for
from blocks.credentials import block_type
from blocks.errors import BatchwerkError, UsageError
from blocks.trusted_hosts import ALLOWED_HOSTS, check_address, is_loopback, keep_loopback_direct
from tests.blocks.scripted import Say, serving

OWN = "https://api.example.com/v1"
GATEWAY = "https://gateway.example.net:8443/v1"
NOT_LOOPBACK = [
    "http://127.0.0.1.example.net",
    "http://localhost.example.net",
    "http://0.0.0.0:80",
    "http://2130706433",
    "http://127.1",
    "http://[::]",
    "http://10.0.0.1",
]


def allowed(url: str, **more: object) -> bool:
    try:
        check_address(url, OWN, **more)  # type: ignore[arg-type]
    except UsageError:
        return False
    return True


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (OWN, True),
        ("https://API.example.com:443/other", True),
        ("https://api.example.com.:443/v1", True),
        ("http://api.example.com/v1", False),
        ("https://api.example.com:444/v1", False),
        ("https://api.example.com.evil.net/v1", False),
        ("https://evil.net/api.example.com", False),
        ("https://evil.net\\@api.example.com/", False),
        ("https://evil.net@api.example.com/", False),
        ("file://api.example.com/v1", False),
        ("http://127.0.0.1:8000/v1", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:8000", True),
        ("http://localhost:8000", True),
        *((url, False) for url in NOT_LOOPBACK),
    ],
)
def test_a_key_goes_to_its_own_address_and_to_this_machine(url: str, *, expected: bool) -> None:
    """Whatever the spelling; a host that only looks like it does not get it."""
    assert allowed(url) is expected


def test_more_hosts_are_allowed_by_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence says how; encryption can be waived by naming the address with http."""
    with pytest.raises(UsageError, match=r"may not be sent to gateway\.example\.net:8443") as caught:
        check_address(GATEWAY, OWN)
    assert caught.value.next_step.endswith(f"export {ALLOWED_HOSTS}=gateway.example.net:8443")
    monkeypatch.setenv(ALLOWED_HOSTS, " other.example.net, gateway.example.net:8443,http://lan:8000,")
    assert allowed(GATEWAY)
    assert allowed("https://other.example.net/v1")
    assert allowed("http://lan:8000/v1")
    assert not allowed("http://gateway.example.net:8443/v1")
    assert not allowed("https://lan:8000/v1")
    assert not allowed("https://gateway.example.net/v1")


def test_what_is_typed_beside_the_key_needs_no_permission() -> None:
    """But it is no permission for another address."""
    assert allowed(GATEWAY, typed_url=GATEWAY)
    assert allowed("http://lan:8000/v1", typed_url="http://lan:8000/v1")
    assert not allowed("https://evil.net", typed_url=GATEWAY)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_connection_out_of_a_file_gets_no_key(monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    """What a state directory names is checked when it is opened, and as a parameter before."""
    monkeypatch.setenv(PROVIDERS[provider].key_variable, "sk-of-the-tests")
    with (
        pytest.raises(UsageError, match="may not be sent to"),
        open_access(Connection(provider, GATEWAY, f"{provider} {GATEWAY}")),
    ):
        pass
    with pytest.raises(UsageError, match="may not be sent to"):
        connection_for(provider, GATEWAY, {})
    assert GATEWAY.startswith(connection_for(provider, GATEWAY, {}, typed_url=GATEWAY).base_url)


def test_the_key_of_a_block_goes_to_its_own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to a server of this machine either, and not to what was typed: who types the address has not the key."""
    block = block_type("openai")(api_key=SecretStr("sk-of-the-tests"), base_url=GATEWAY)
    monkeypatch.setattr("blocks.credentials.load_block", lambda _: block)
    slug = "openai-credentials/team"
    assert connection_for(slug, None, {}).base_url == GATEWAY
    for url in ("https://evil.net", "http://127.0.0.1:9", PROVIDERS["openai"].base_url):
        with pytest.raises(UsageError, match="may not be sent to"):
            connection_for(slug, url, {}, typed_url=url)
        with pytest.raises(UsageError, match="may not be sent to"), open_access(Connection("openai", url, "x", slug)):
            pass
    with open_access(Connection("openai", GATEWAY, "x", slug)) as access:
        assert access.key.get_secret_value() == "sk-of-the-tests"


def test_this_machine_is_reached_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment is for the rest of the world."""
    with serving(Say(200, {})) as proxy, serving(Say(401, {})) as server:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-tests")
        with open_access(connection_for("openai", server.url, {})) as access:
            client = access.client()
            with pytest.raises(BatchwerkError, match="401"):
                client.poll("batch_1")
            client.close()
        assert len(server.asked) == 1
        keep_loopback_direct()
        assert httpx.get(server.url).status_code == 401  # as Prefect's client calls its server
        assert proxy.asked == []


def test_an_emulator_of_a_run_answers_nobody_else(tmp_path: Path) -> None:
    """Its key is new each time, in no argument, and its books are not open."""
    keys: set[str] = set()
    for _ in range(2):
        with open_access(connection_for("local", None, {"latency": "0"}), tmp_path) as access:
            key, url = access.key.get_secret_value(), access.base_url
            keys.add(key)
            assert is_loopback(url)
            host = url.removesuffix("/v1")
            assert httpx.get(f"{host}/emulator/ledger").status_code == 401
            assert httpx.get(f"{host}/emulator/ledger?rows=1").status_code == 401
            assert httpx.get(f"{url}/batches/x", headers={"authorization": "Bearer emulated"}).status_code == 401
            right = {"authorization": f"Bearer {key}"}
            assert httpx.get(f"{host}/emulator/ledger", headers=right).json()["creates"] == 0
            pid = httpx.get(f"{host}/emulator/health").json()["pid"]
            assert key.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert len(keys) == 2


@pytest.mark.parametrize("option", ["host", "key", "state"])
def test_who_may_reach_the_emulator_is_no_option_of_a_run(option: str) -> None:
    """A form can't open it to the network."""
    with pytest.raises(UsageError, match=f"--option {option}"):
        connection_for("local", None, {option: "0.0.0.0"})  # noqa: S104  # refused


def test_an_emulator_starts_from_its_own_package_and_without_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever lies in the current folder, and whatever keys this process has."""
    for name in ("blocks", "orjson"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("open('imported', 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", ".")
    for name in ("OPENAI_API_KEY", "PREFECT_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "planted-elsewhere")
    with open_access(connection_for("local", None, {"latency": "0"})) as access:
        host = access.base_url.removesuffix("/v1")
        pid = httpx.get(f"{host}/emulator/health").json()["pid"]
        assert b"planted" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("batch_id", ["../../files", "https://evil.example.net/x", "a/b?c=d#e", "//evil.example.net"])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_id_leads_to_no_other_place(monkeypatch: pytest.MonkeyPatch, provider: str, batch_id: str) -> None:
    """A batch's id is read from a state directory: it is one step of a path, whatever stands in it."""
    monkeypatch.setenv(PROVIDERS[provider].key_variable, "sk-of-the-tests")
    with serving(Say(404, {})) as server, open_access(connection_for(provider, server.url, {})) as access:
        client = access.client()
        for call in (client.poll, client.cancel):
            with pytest.raises(BatchwerkError, match="404"):
                call(batch_id)
        client.close()
    for asked in server.asked:
        assert quote(batch_id, safe="") in asked.path
        assert not asked.query
