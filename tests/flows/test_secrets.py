"""Keys never reach a log, an error, the journal, an artifact or the report, whatever the provider does with them."""

from __future__ import annotations

import base64
import io
import logging
import os
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pyarrow.parquet as pq
import pytest
import stamina
from pydantic import SecretStr
from rich.console import Console
from rich.traceback import Traceback

from blocks.catalog import PROVIDERS
from blocks.emulator import EmulatorOptions, running_emulator
from blocks.errors import BatchwerkError, UsageError
from flows.report.verdict import Exit
from flows.storage.state import StateDirectory
from tests.blocks.scripted import Drop, Say, Step, serving
from tests.flows.command import ROOT, Called, started_batchwerk
from tests.flows.echoing import echoing
from tests.flows.undecorated import enrich, reviews, write_job, write_texts

TOKEN = "q7Zr3PlantedKeyW9xV2bN5mT8"  # noqa: S105  # planted: whatever holds it gives the key away
KEYS = {  # in the form of each provider's
    "holysheep": f"hs/{TOKEN}+/c0=",
    "openai": f"sk-proj-{TOKEN}_T3BlbkFJ-a1",
    "anthropic": f"sk-ant-api03-{TOKEN}-_AA",
    "mistral": f"{TOKEN}0aB1",
    "gemini": f"AIzaSy{TOKEN}-_3",
}
KEYED = list(KEYS)
BLOCKS = {
    "holysheep": "HolySheepCredentials",
    "openai": "OpenAICredentials",
    "anthropic": "AnthropicCredentials",
    "mistral": "MistralCredentials",
    "gemini": "GeminiCredentials",
}
MODELS = {
    "holysheep": "gpt-4.1",
    "openai": "gpt-4.1",
    "anthropic": "claude-haiku-4-5",
    "mistral": "mistral-small-latest",
    "gemini": "gemini-2.5-flash",
}
CHATTY = ("batchwerk", "httpx", "httpcore", "stamina", "prefect", "asyncio")
TROUBLED = {"latency": 0.0, "failure_rate": 0.5, "fault_attempts": 9, "fail_batch_every": 2}


def forms(key: str) -> set[bytes]:
    """What gives the key away: its random part, the whole of it in a URL, and in Base64 at any offset."""
    found = {TOKEN, quote(key, safe="")}
    for offset in range(3):
        encoded = base64.b64encode(b"x" * offset + key.encode()).decode()
        found.add(encoded[4:-4])  # without the characters that the neighbours take part in
    return {form.encode() for form in found}


def gives_away(text: str | bytes, key: str) -> bool:
    content = text.encode() if isinstance(text, str) else text
    return any(form in content for form in forms(key))


def lines_that_give_away(texts: Iterable[str], key: str) -> list[str]:
    return [line for text in texts for line in text.splitlines() if gives_away(line, key)]


def files_that_give_away(folder: Path, key: str) -> list[str]:
    """Files below a folder that have the key in them, also compressed in Parquet or in rows of SQLite."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and gives_away(_content(path), key)]


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if content[:4] == b"PAR1":
        table = pq.read_table(path, partitioning=None)
        content += repr(table.to_pylist()).encode() + repr(table.schema.metadata).encode()
    elif content[:15] == b"SQLite format 3":
        with closing(sqlite3.connect(path)) as db:
            content += "\n".join(db.iterdump()).encode()
    return content


def tellings_of(error: BaseException) -> Iterator[str]:
    """All ways in which an error may be shown."""
    yield from (str(error), repr(error), repr(vars(error)), repr(error.args))
    yield "".join(traceback.format_exception(error))
    below = error.__traceback__ and error.__traceback__.tb_next  # the test itself knows the key
    yield "".join(traceback.TracebackException(type(error), error, below, capture_locals=True).format())
    if error.__cause__ is not None and error.__cause__ is not error:
        yield from tellings_of(error.__cause__)


def richly_told(error: BaseException) -> str:
    """As `rich.traceback.install(show_locals=True)` would show it."""
    below = error.__traceback__ and error.__traceback__.tb_next
    shown = Traceback.from_exception(type(error), error, below, show_locals=True, locals_max_string=999)
    with io.StringIO() as file:
        Console(file=file, width=300).print(shown)
        return file.getvalue()


@contextmanager
def everything_logged() -> Iterator[io.StringIO]:
    """What a program would see that asks for all there is."""
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    loggers = [logging.getLogger(name) for name in ("", *CHATTY)]
    levels = [logger.level for logger in loggers]
    logging.getLogger().addHandler(handler)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    try:
        yield said
    finally:
        logging.getLogger().removeHandler(handler)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    with stamina.set_testing(True, attempts=2):
        yield


def call(folder: Path, provider: str, base_url: str, **more: Any) -> dict[str, Any]:
    return {
        "input": str(write_texts(folder, reviews(8))),
        "output": str(folder / "out.parquet"),
        "job": str(write_job(folder)),
        "provider": provider,
        "model": MODELS[provider],
        "base_url": base_url,
        "batch_size": 4,
        "max_attempts": 2,
        "poll_interval": 0.05,
        "give_up_after": 0.0,
        **more,
    }


def troubles(key: str) -> dict[str, Step]:
    """Refusals and breaks, each with the key in it."""
    said = {"message": f"bad key: {key}", "code": key, "type": key, "status": key, "details": [{"reason": key}]}
    body = {"error": said, "message": said["message"], "detail": said["message"], "type": key}
    echo = {"x-called-with": f"Bearer {key}", "www-authenticate": f'Bearer realm="{key}"', "location": f"/{key}"}
    return {
        "401": Say(401, body, echo),
        "403": Say(403, body, echo),
        "400": Say(400, body, echo),
        "404": Say(404, body, echo),
        "413": Say(413, body, echo),
        "429": Say(429, body, {**echo, "retry-after": "0"}),
        "503": Say(503, body, echo),
        "307": Say(307, body, echo),
        "not JSON": Say(200, f"<html>{key}</html>".encode(), echo),
        "not JSON 500": Say(500, f"<html>{key}</html>".encode(), echo),
        "another JSON": Say(200, {"id": None, "status": key, "data": key, "error": body}, echo),
        "a text": Say(400, key, echo),
        "broken line": Drop(after=f"HTTP/1.1 200 OK\r\n{key} no colon\r\n\r\n".encode()),
        "broken status": Drop(after=f"HTTP/1.1 2xx {key}\r\n\r\n".encode()),
        "broken off": Drop(after=f"HTTP/1.1 200 {key}\r\ncontent-length: 900\r\nx: {key}\r\n\r\n{{".encode()),
        "broken encoding": Say(200, key.encode(), {**echo, "content-encoding": "gzip"}),
        "nothing": Drop(reset=True),
    }


FIRST = {"401", "broken line"}  # what every provider is tried with each time


@pytest.mark.parametrize(
    ("provider", "trouble"),
    [
        pytest.param(provider, trouble, marks=() if provider == "openai" or trouble in FIRST else pytest.mark.slow)
        for provider in KEYED
        for trouble in troubles("")
    ],
)
def test_a_server_that_repeats_the_key_is_quoted_without_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    provider: str,
    trouble: str,
) -> None:
    """Neither the error, nor its traceback with the variables of all frames, nor any log or file has the key."""
    key = KEYS[provider]
    monkeypatch.setenv(PROVIDERS[provider].key_variable, key)
    tellings: list[str] = []
    with serving(troubles(key)[trouble]) as server, everything_logged() as logged:
        try:
            figures = enrich(**call(tmp_path, provider, server.url, wait=0.5))
        except BatchwerkError as error:
            tellings = [*tellings_of(error), *([richly_told(error)] if trouble == "401" else [])]
        else:
            tellings = [repr(figures), figures.message]
    assert not lines_that_give_away(tellings, key)
    assert not gives_away(logged.getvalue(), key)
    assert not gives_away("".join(capfd.readouterr()), key)
    assert not files_that_give_away(tmp_path, key)


@pytest.mark.parametrize(("provider", "helpers"), [*((provider, 0) for provider in KEYED), ("openai", 2)])
def test_what_rows_and_batches_failed_of_is_kept_without_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], provider: str, helpers: int
) -> None:
    """`_error`, the results parts, the journal and the report say what happened, and leave out the key.

    Also where processes that help to collect are given the key.
    """
    monkeypatch.setattr("flows.batches.loop.collectors_for", lambda _: helpers)
    key = KEYS[provider]
    monkeypatch.setenv(PROVIDERS[provider].key_variable, key)
    options = EmulatorOptions(dialect=provider, key=key, **TROUBLED)  # type: ignore[arg-type]
    with running_emulator(options) as emulator, echoing(emulator.base_url) as gateway, everything_logged() as logged:
        figures = enrich(**call(tmp_path, provider, gateway.url, give_up_after=None))
        assert gateway.echoed
    errors = [error for error in pq.read_table(tmp_path / "out.parquet").column("_error").to_pylist() if error]
    assert errors
    assert all("…" in error for error in errors)
    assert figures.exit is Exit.ROWS_FAILED
    assert not gives_away(logged.getvalue(), key)
    assert not gives_away("".join(capfd.readouterr()), key)
    assert not files_that_give_away(tmp_path, key)


@pytest.mark.parametrize(
    "provider", [pytest.param(each, marks=[] if each == "openai" else [pytest.mark.slow]) for each in KEYED]
)
@pytest.mark.parametrize("spoilt", ["{}\nmore", "{} more…", "{}\x00"])
def test_a_key_that_can_be_none_is_refused_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str, spoilt: str
) -> None:
    """It was copied wrongly, but most of it is right."""
    key = KEYS[provider]
    if "\x00" in spoilt:
        monkeypatch.setattr("blocks.clients._key", lambda *_: SecretStr(spoilt.format(key)))
        monkeypatch.setenv(PROVIDERS[provider].key_variable, "x")
    else:
        monkeypatch.setenv(PROVIDERS[provider].key_variable, spoilt.format(key))
    with pytest.raises(UsageError, match="has a character that no key has") as caught:
        enrich(**call(tmp_path, provider, "http://127.0.0.1:9"))
    assert not lines_that_give_away(tellings_of(caught.value), key)
    assert not files_that_give_away(tmp_path, key)


@pytest.mark.parametrize("url", ["http://{}@127.0.0.1:9/v1", "http://me:{}@127.0.0.1:9", "http://127.0.0.1:9/?key={}"])
def test_a_key_in_the_address_is_refused_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """The address is written down with each batch: nothing secret may stand in it."""
    key = KEYS["openai"]
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UsageError, match="--base-url") as caught:
        enrich(**call(tmp_path, "openai", url.format(key)))
    assert not gives_away(str(caught.value), key)
    assert not files_that_give_away(tmp_path, key)


@pytest.mark.parametrize("provider", KEYED)
def test_an_emulator_with_a_key_tells_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    """`batchwerk emulator --key` as a service of its own: neither the right key nor a wrong one is said by anybody."""
    key, wrong = KEYS[provider], f"wrong-{KEYS[provider]}"
    program = "import sys; sys.argv[0] = 'batchwerk'; from flows.cli import main; main()"
    command = [sys.executable, "-c", program, "emulator", "--dialect", provider, f"--key={key}", "--latency=0"]
    state = tmp_path / "service.sqlite"
    with subprocess.Popen(
        [*command, f"--state={state}"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as service:
        assert service.stdout is not None
        announced = service.stdout.readline()
        url = announced.split()[4].rstrip(",")
        with everything_logged() as logged:
            monkeypatch.setenv(PROVIDERS[provider].key_variable, wrong)
            with pytest.raises(UsageError, match=r"answered 40[01]") as caught:
                enrich(**call(tmp_path, provider, url))
            monkeypatch.setenv(PROVIDERS[provider].key_variable, key)
            figures = enrich(**call(tmp_path, provider, url))
        service.terminate()
        said = announced + service.stdout.read()
    assert figures.rows == {"ok": 8}
    assert not lines_that_give_away([said, logged.getvalue(), *tellings_of(caught.value)], key)
    assert not files_that_give_away(tmp_path, key)


# --- with Prefect ---------------------------------------------------------------------------------------------------

with_prefect = [pytest.mark.prefect, pytest.mark.xdist_group("prefect and secrets")]  # beside the other group
LOUD = {
    "PREFECT_LOGGING_LEVEL": "DEBUG",
    "PREFECT_LOGGING_SERVER_LEVEL": "DEBUG",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "batchwerk,stamina",  # httpx's would tell of the telling, without end
    "PREFECT_DEBUG_MODE": "true",
}
PROGRAM = """
import logging, sys, orjson
logging.basicConfig(level=logging.DEBUG)
for name in ("batchwerk", "httpx", "httpcore", "stamina", "prefect"):
    logging.getLogger(name).setLevel(logging.DEBUG)
from rich.traceback import install
install(show_locals=True)
from flows.enrich import enrich
state = enrich(**orjson.loads(sys.argv[1]), return_state=True)
print(repr(state), repr(state.data))
state.result(raise_on_failure=True)
"""


@pytest.fixture(scope="module")
def env(shared_prefect: dict[str, str]) -> dict[str, str]:
    return shared_prefect


def save_block(env: dict[str, str], provider: str, base_url: str) -> str:
    """Save the key as a team would; the name to run with."""
    block = BLOCKS[provider]
    code = (
        f"import os; from blocks.credentials import {block} as C;"
        f"C(api_key=os.environ['PLANTED'], base_url={base_url!r}).save('planted', overwrite=True)"
    )
    planted = {**os.environ, **env, "PLANTED": KEYS[provider]}
    subprocess.run([sys.executable, "-c", code], env=planted, cwd=ROOT, check=True)
    return f"{provider}-credentials/planted"


def nothing_given_away(env: dict[str, str], folder: Path, called: Called, key: str) -> None:
    assert not gives_away(called.out + called.err, key)
    assert not files_that_give_away(folder, key)
    assert not files_that_give_away(Path(env["PREFECT_HOME"]), key), "its database has states, logs and artifacts"


@pytest.mark.parametrize(
    "provider",
    [pytest.param(name, marks=with_prefect + ([] if name == "gemini" else [pytest.mark.slow])) for name in KEYED],
)
def test_the_command_at_debug_level_gives_nothing_away(env: dict[str, str], tmp_path: Path, provider: str) -> None:
    """`batchwerk run` with the key in the environment, against a gateway that repeats it; Prefect keeps every log."""
    key = KEYS[provider]
    options = EmulatorOptions(dialect=provider, key=key, **TROUBLED)  # type: ignore[arg-type]
    with running_emulator(options) as emulator, echoing(emulator.base_url) as gateway:
        given = call(tmp_path, provider, gateway.url)
        arguments = ["run", given["input"], given["output"], "--job", given["job"], "--provider", provider]
        arguments += ["--model", given["model"], "--base-url", gateway.url, "--batch-size", "4"]
        arguments += ["--poll-interval", "0.05", "--max-attempts", "2"]
        called = started_batchwerk(*arguments, env={**env, **LOUD, PROVIDERS[provider].key_variable: key})
        assert called.status == int(Exit.ROWS_FAILED), called.err
        assert gateway.echoed
    with serving(troubles(key)["401"]) as server:
        arguments[2], arguments[arguments.index("--base-url") + 1] = str(tmp_path / "other.parquet"), server.url
        refused = started_batchwerk(*arguments, env={**env, **LOUD, PROVIDERS[provider].key_variable: key})
    assert (refused.status, "401" in refused.err) == (2, True), refused.err
    assert "NoneType" not in refused.err  # a traceback of nothing
    nothing_given_away(env, tmp_path, called, key)
    nothing_given_away(env, tmp_path, refused, key)


@pytest.mark.parametrize(
    "provider",
    [pytest.param(name, marks=with_prefect + ([] if name == "openai" else [pytest.mark.slow])) for name in KEYED],
)
def test_a_flow_with_a_saved_block_gives_nothing_away(env: dict[str, str], tmp_path: Path, provider: str) -> None:
    """The flow in a program that logs all there is and shows tracebacks with their variables; well, and refused."""
    key = KEYS[provider]
    options = EmulatorOptions(dialect=provider, key=key, **TROUBLED)  # type: ignore[arg-type]
    with running_emulator(options) as emulator, echoing(emulator.base_url) as gateway:
        slug = save_block(env, provider, gateway.url)
        parameters = {**call(tmp_path, provider, ""), "provider": slug, "base_url": None, "give_up_after": None}
        called = run_program(parameters, env)
        assert "8 of 8" not in called.out
        assert gateway.echoed, called.err
    with serving(troubles(key)["400"]) as server:
        save_block(env, provider, server.url)
        refused = run_program({**parameters, "output": str(tmp_path / "other.parquet")}, env)
    assert StateDirectory(Path(parameters["output"])).report("md").exists(), called.err
    assert "answered 400" in refused.out, refused.err
    nothing_given_away(env, tmp_path, called, key)
    nothing_given_away(env, tmp_path, refused, key)


def run_program(parameters: dict[str, Any], env: dict[str, str]) -> Called:
    """The flow as a program of a user's own calls it."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, orjson.dumps(parameters).decode()],
        env={**os.environ, **env, **LOUD},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return Called(done.returncode, done.stdout, done.stderr)
