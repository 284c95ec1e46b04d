"""HTTP for the providers: authenticated calls, and one table from answer to error."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import orjson

from blocks.downloads import Damaged, Download, TooMuch, lines_of, unpacked
from blocks.errors import (
    UNCOUNTED,
    AuthenticationFailed,
    BatchRefused,
    BatchTooLarge,
    Complaint,
    Incomplete,
    NotFound,
    Oversized,
    ProviderError,
    SpendLimitReached,
    Transient,
    UnknownOutcome,
    UsageError,
)
from blocks.masking import Mask, MaskingFilter, hiding
from blocks.printable import printable
from blocks.retries import http_date, retry_after_seconds, with_retries
from blocks.tolerant import parse
from blocks.trusted_hosts import is_loopback

log = logging.getLogger("batchwerk.transport")


T = TypeVar("T")
ErrorReader = Callable[[Any], Complaint]  # of a parsed body
OutOfMoney = Callable[[int, str | None, float | None], bool]  # (HTTP status, code, retry_after)

CLOCK_STEP = 2.0  # seconds: the header `date` is cut to whole ones

UPLOAD_CHUNK = DOWNLOAD_CHUNK = 256 * 1024  # bytes; large enough to be cheap, small enough to keep memory flat
MOST = 128 * 1024 * 1024  # bytes of an answer that is read as a whole
MOST_OF_AN_ERROR = 1024 * 1024
KEY_HEADERS = ("authorization", "x-api-key", "x-goog-api-key")  # one of them carries the key
_before_create: ContextVar[Callable[[], None]] = ContextVar("before_create", default=lambda: None)
CHATTY = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.proxy")  # loggers that tell what servers send


@contextmanager
def checking_creates(check: Callable[[], None]) -> Iterator[None]:
    """What `check` raises keeps each create that is made inside, and each repetition of one, from being accepted.

    It is called right before the create and between the chunks of its body: uploads and pauses before it take long.
    """
    token = _before_create.set(check)
    try:
        yield
    finally:
        _before_create.reset(token)


class Transport:
    """One provider's HTTP: authenticated calls that return parsed JSON or raise `ProviderError`s."""

    def __init__(
        self,
        provider: str,
        base_url: str,
        headers: Mapping[str, str],
        read_error: ErrorReader,
        *,
        out_of_money: OutOfMoney = lambda status, code, retry_after: False,  # noqa: ARG005  # what it is asked with
        key_codes: tuple[str, ...] = (),  # codes that say, under whatever status, that the key is wrong
    ) -> None:
        self.provider = provider
        self.clock_ahead = 0.0  # seconds by which the service's clock is ahead of ours
        self.clock_is_known = False  # whether the service has said what time it is
        self._key_codes = key_codes
        self._read_error = read_error
        self._out_of_money = out_of_money
        _check_headers(provider, headers)
        self._mask = hiding(_key_in(headers))
        self._filter = MaskingFilter(self._mask)
        for name in CHATTY:
            logging.getLogger(name).addFilter(self._filter)
        self._client = _new_client(base_url, headers, keep_alive=16)
        # A connection that the server closes just before it is used again can't be told from a lost answer: creates
        # get a new one each.
        self._creator = _new_client(base_url, headers, keep_alive=0)

    def get(self, path: str, **params: str | int) -> Any:
        """Read JSON, again and again while it may pass."""
        return with_retries(lambda: self._call("GET", path, params=params))

    def post(self, path: str, body: Any = None) -> Any:
        """A call that may be made twice without harm (cancel)."""
        return with_retries(lambda: self._call("POST", path, json=body))

    def create(self, path: str, body: Path, size: int, headers: Mapping[str, str]) -> Any:
        """A call that must not be made twice, its body streamed from a file.

        Tried again only where nothing was accepted; raises `UnknownOutcome` where that can't be told.
        """
        sized = {"content-type": "application/json", "content-length": str(size), **headers}
        return with_retries(lambda: self._call("POST", path, creating=True, content=_checked(body), headers=sized))

    def create_json(self, path: str, body: Any) -> Any:
        """`create` with a body that fits into memory, encoded already where it is bytes, under the same rules."""
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        headers = {"content-type": "application/json"}
        return with_retries(lambda: self._call("POST", path, creating=True, content=content, headers=headers))

    def upload(self, path: str, fields: Mapping[str, str], file: Path, size: int, filename: str) -> Any:
        """Send a file as multipart form data, streamed from disk; it comes last, after the fields.

        For files that cost nothing until something refers to them: it may be done twice.
        """
        boundary = f"batchwerk-{uuid4().hex}"
        head, tail = _multipart(boundary, fields, filename)
        headers = {
            "content-type": f"multipart/form-data; boundary={boundary}",
            "content-length": str(len(head) + size + len(tail)),
        }
        return with_retries(
            lambda: self._call("POST", path, content=chain([head], _chunks(file), [tail]), headers=headers)
        )

    def upload_resumable(self, path: str, about: Any, file: Path, size: int) -> Any:
        """Send a file by Google's resumable protocol (docs/wire-protocols.md §5), in one piece, streamed from disk.

        `about` is the JSON that the upload begins with. It may be done twice. The address that the server names for
        the bytes is called at our own base URL: a key never goes to another host.
        """
        headers = {
            "x-goog-upload-protocol": "resumable",
            "x-goog-upload-command": "start",
            "x-goog-upload-header-content-length": str(size),
            "x-goog-upload-header-content-type": about["file"]["mime_type"],
        }
        finish = {"x-goog-upload-command": "upload, finalize", "x-goog-upload-offset": "0", "content-length": str(size)}

        def send() -> Any:
            named = self._request("POST", path, json=about, headers=headers).headers.get("x-goog-upload-url", "")
            address = urlsplit(named)
            if not address.path:
                raise Transient(f"{self.provider} named no address to upload to", provider=self.provider)
            target = self._client.base_url.copy_with(raw_path=f"{address.path}?{address.query}".encode())
            return self._call("POST", str(target), content=_chunks(file), headers=finish)

        return with_retries(send)

    def lines(self, path: str) -> Generator[bytes, None, None]:
        """The lines of a file of results, without their ends, read as they arrive: memory does not grow with the file.

        Where the connection breaks the file is read again from its start, and lines that were passed on are left out,
        wherever they stand now. Raises `Incomplete` where what comes is no file of results, or not the whole of one.
        """
        download = Download(lambda: self._lines_once(path))
        try:
            while (lines := with_retries(download.next_lines)) is not None:
                yield from lines
        finally:
            download.close()

    def _lines_once(self, path: str) -> Generator[list[bytes], None, None]:
        broken = _connection_errors(self.provider, self._mask, creating=False)
        with broken, self._client.stream("GET", path) as response:
            if response.status_code >= 300:
                raise self._error(_whole(response), creating=False)
            pieces = unpacked(response.iter_raw(DOWNLOAD_CHUNK), _encoding(response))
            try:
                yield from lines_of(pieces, response.headers.get("content-type", ""))
            except Damaged as damage:
                said = f"{self.provider}'s results could not be read: {damage}"
                fewer = UNCOUNTED if damage.partial else 0
                raise Incomplete(said, fewer=fewer, provider=self.provider) from None

    def first(self, path: str, wanted: Callable[[bytes], T | None]) -> T | None:
        """What `wanted` makes of the first line of a file that it takes; the rest of the file is not read."""
        with closing(self.lines(path)) as lines:
            return next((found for line in lines if (found := wanted(line)) is not None), None)

    def close(self) -> None:
        """Close the pooled connections."""
        self._client.close()
        self._creator.close()
        for name in CHATTY:
            logging.getLogger(name).removeFilter(self._filter)

    def _call(self, method: str, path: str, *, creating: bool = False, **options: Any) -> Any:
        response = self._request(method, path, creating=creating, **options)
        try:
            return parse(response.content)
        except (ValueError, RecursionError):  # which has the whole answer in it, and so perhaps the key
            kind = UnknownOutcome if creating else Transient
        raise kind(f"{self.provider} answered {method} {path} with something that is not JSON")

    def _request(self, method: str, path: str, *, creating: bool = False, **options: Any) -> _Reply:
        if creating:
            _before_create.get()()
        with _connection_errors(self.provider, self._mask, creating=creating):
            client = self._creator if creating else self._client
            with client.stream(method, path, **options) as response:
                self._read_clock(response)
                reply = _whole(response)
        if reply.status >= 300:
            raise self._error(reply, creating=creating)
        return reply

    def _read_clock(self, response: httpx.Response) -> None:
        """How far the service's clock is ahead, as each answer says it to the second."""
        if (at := http_date(response.headers.get("date", ""))) is not None:
            self.clock_is_known, ahead = True, at.timestamp() - time.time()
            self.clock_ahead = ahead if abs(ahead) > CLOCK_STEP else 0.0

    def _error(self, response: _Reply, *, creating: bool) -> ProviderError:
        """The error that stands for a response; while creating, a 5xx may hide an accepted batch."""
        status = response.status
        try:
            code, message, asked = self._read_error(parse(response.content))
        except Exception:  # noqa: BLE001  # an error may have any body: what it says can't matter more than its status
            code, message, asked = None, response.reason, None
        delay = retry_after_seconds(response.headers)
        delay = asked if delay is None else delay
        code, message = code and printable(self._mask(code)), printable(self._mask(message))
        unpaid = status < 500 and self._out_of_money(status, code, delay)
        barred = status < 500 and code in self._key_codes
        kind, next_step = _kind_of(401 if barred else 402 if unpaid else status, creating=creating)
        said = f"{self.provider} answered {status}{f' ({code})' if code else ''}: {message or 'no reason given'}"
        error = kind(said, next_step=next_step, provider=self.provider, status=status, code=code, retry_after=delay)
        error.worth_repeating = response.headers.get("x-should-retry") != "false"
        return error


@dataclass(frozen=True, slots=True)
class _Reply:
    """A whole answer to a call. Servers repeat keys: of a reply in the frames of an exception only the status shows."""

    status: int
    reason: str = field(repr=False)
    headers: httpx.Headers = field(repr=False)
    content: bytearray = field(repr=False)


def _whole(response: httpx.Response) -> _Reply:
    """The answer with its body, of which there may be only so much. Of an error the status counts, whatever it says."""
    failed = response.status_code >= 300
    content = bytearray()  # which grows in its place: pieces that are joined take the memory twice
    try:
        for piece in unpacked(response.iter_raw(), _encoding(response), MOST_OF_AN_ERROR if failed else MOST):
            content += piece
    except Damaged:
        if not failed:
            raise
        content.clear()
    return _Reply(response.status_code, response.reason_phrase, response.headers, content)


def _encoding(response: httpx.Response) -> str:
    found: str = response.headers.get("content-encoding", "")
    return found.strip().lower()


def server_date(base_url: str, seconds: float) -> datetime | None:
    """What time it is for a server, which is asked without a key. Raises Transient if it does not answer."""
    with (
        _connection_errors(base_url, str, creating=False),
        _new_client(base_url, {}, keep_alive=0) as client,
    ):
        said = client.head("/", timeout=seconds).headers.get("date", "")
    return http_date(said)


def _multipart(boundary: str, fields: Mapping[str, str], filename: str) -> tuple[bytes, bytes]:
    """What stands before and after the file's bytes."""
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    opening = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return "".join([*parts, opening]).encode(), f"\r\n--{boundary}--\r\n".encode()


def _new_client(base_url: str, headers: Mapping[str, str], *, keep_alive: int) -> httpx.Client:
    return httpx.Client(
        base_url=base_url,
        trust_env=not is_loopback(base_url),  # a proxy would see, or answer, what is meant for this machine
        headers={"user-agent": "batchwerk", "accept-encoding": "gzip, deflate", **headers},
        # A provider may check a large batch before it answers: reading gets the longest time-out.
        timeout=httpx.Timeout(connect=10.0, read=120.0, write=60.0, pool=60.0),
        limits=httpx.Limits(max_connections=32, max_keepalive_connections=keep_alive),
        verify=_trusted(),
    )


@cache
def _trusted() -> ssl.SSLContext:
    """The certificates that are trusted, read once: they take longer to read than all else in a client."""
    return httpx.create_ssl_context()


def _kind_of(status: int, *, creating: bool) -> tuple[type[ProviderError], str]:
    match status:
        case 401 | 403:
            return AuthenticationFailed, "check the API key and what it may do; what was collected is kept"
        case 402:
            return SpendLimitReached, "raise the spend limit at the provider, then run the same command again"
        case 404:
            return NotFound, "if it is the address: check --base-url, most end in /v1"
        case 413:
            return BatchTooLarge, "use a smaller --batch-size"
        case 429:
            return Transient, "run the same command again later: it goes on from here"
        case 501:
            return BatchRefused, "the service does not do this: check --base-url and the provider's options"
        case _ if status >= 500 or status == 408:
            return UnknownOutcome if creating else Transient, "run the same command again: it goes on from here"
        case _ if status < 400:
            return BatchRefused, "it points to another address: check the base URL"
        case _:
            return BatchRefused, ""


def _check_headers(provider: str, headers: Mapping[str, str]) -> None:
    """A key that was copied with a line break or a typographic sign would only be refused later, and be shown then."""
    for value in headers.values():
        if not (value and value.isascii() and value.isprintable() and value == value.strip()):
            raise UsageError(
                f"the key for {provider} is empty or has a character that no key has, such as a line break",
                next_step="copy it again",
            )


def _key_in(headers: Mapping[str, str]) -> str:
    """The key that the headers carry."""
    return next((headers[name].removeprefix("Bearer ") for name in KEY_HEADERS if name in headers), "")


@contextmanager
def _connection_errors(provider: str, mask: Mask, *, creating: bool) -> Iterator[None]:
    """Turns httpx's exceptions into ours; a connection that never stood is transient even while creating.

    Ours come alone: httpx's quote what the server sent, and their frames hold the headers with the key.
    """
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise Transient(
            f"{provider} can't be reached: {_quoted(error, mask)}",
            next_step="check the network and the base URL; the same command goes on from here",
            provider=provider,
        ) from None
    except TooMuch as error:
        if not creating:
            raise Oversized(f"{provider}'s answer could not be read: {error}", provider=provider) from None
        raise UnknownOutcome(f"{provider} answered a create with too much: {error}", provider=provider) from None
    except (httpx.RequestError, Damaged) as error:  # broken on the way, or no answer
        kind = UnknownOutcome if creating else Transient
        raise kind(
            f"the connection to {provider} broke: {_quoted(error, mask)}",
            next_step="the same command goes on from here",
            provider=provider,
        ) from None


def _quoted(error: Exception, mask: Mask) -> str:
    """What an exception says, now without the key, also to those who look at the exception itself."""
    error.args = (printable(mask(str(error))),)
    return str(error) or type(error).__name__


def _checked(body: Path) -> Iterator[bytes]:
    for chunk in _chunks(body):
        _before_create.get()()  # without its last chunk the create is none
        yield chunk


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(UPLOAD_CHUNK):
            yield chunk
