"""What Prefect's server says of itself, for `batchwerk doctor`. A temporary server is never started for it."""

from __future__ import annotations

from dataclasses import dataclass

import prefect
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from blocks.catalog import PROVIDERS
from blocks.credentials import slug_of
from flows.orchestration.server import CallFailed, PrefectServer
from flows.report.waits import Waits


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    url: str
    version: str
    client_version: str
    lease_storage: str | None  # the module that keeps leases; None if it does not say


def inspect_server() -> Server | None:
    """The server of this environment; None if none is set. Raises CallFailed."""
    url = PREFECT_API_URL.value()
    if not url:
        return None
    with PrefectServer(Waits()) as server:
        version = server.ask(lambda client: client.api_version())
        return Server(url, str(version), prefect.__version__, _lease_storage(server))


def _lease_storage(server: PrefectServer) -> str | None:
    """Prefect Cloud, and a server that is kept from its administration, don't say."""
    try:
        told = server.ask(lambda client: client.request("GET", "/admin/settings").json())
        return str(told["server"]["concurrency"]["lease_storage"])
    except (CallFailed, ObjectNotFound, KeyError, TypeError, ValueError):
        return None


def read_saved() -> dict[str, list[str] | None]:
    """The names of saved blocks by type; None where the server does not know the type. Raises CallFailed."""

    def saved(client: SyncPrefectClient, slug: str) -> list[str] | None:
        try:
            client.read_block_type_by_slug(slug)
            found = client.read_block_documents_by_type(slug, include_secrets=False)
        except ObjectNotFound:
            return None
        return [str(each.name) for each in found]

    with PrefectServer(Waits()) as server:
        return {slug: server.ask(lambda client, slug=slug: saved(client, slug)) for slug in map(slug_of, PROVIDERS)}  # type: ignore[misc]
