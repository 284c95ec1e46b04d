"""The filters and pages of Mistral's lists. Keys that the list of jobs does not know are metadata."""

from datetime import UTC, datetime

from starlette.datastructures import QueryParams

from blocks.emulator.dialects.mistral.requests import Unprocessable
from blocks.emulator.wire.calls import CallError, query_number
from blocks.emulator.wire.lines import Json

PAGE_SIZE, MAX_PAGE_SIZE = 100, 1000
LIST_FIELDS = ("page", "page_size", "created_after", "created_by_me", "order_by")
OTHER_FIELDS = ("model", "agent_id", "status")  # filters of the real service that the emulator does not support


def read_number(query: QueryParams, name: str, default: int, low: int, high: int) -> int:
    """A whole number from the query. Raises Unprocessable."""
    try:
        return query_number(query, name, default, low, high)
    except CallError as error:
        raise Unprocessable(("query", name), error.message, "int_parsing") from None


def page_of(shown: list[Json], query: QueryParams) -> list[Json]:
    """The requested page. Raises Unprocessable."""
    size = read_number(query, "page_size", PAGE_SIZE, 1, MAX_PAGE_SIZE)
    first = size * read_number(query, "page", 0, 0, 10**9)
    return shown[first : first + size]


def check_listing(query: QueryParams) -> None:
    """Raises Unprocessable for filters and orders that the emulator does not know."""
    for name in OTHER_FIELDS:
        if name in query:
            raise Unprocessable(("query", name), "The emulator does not know this filter")
    if query.get("order_by", "-created") != "-created":
        raise Unprocessable(("query", "order_by"), "The emulator lists in the order '-created' only", "enum")
    if "created_after" in query:
        parse_time(query["created_after"])


def parse_time(text: str) -> float:
    """Seconds since the epoch; without a zone it is UTC. Raises Unprocessable."""
    try:
        at = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)  # a plus that was not quoted
    except ValueError:
        where = ("query", "created_after")
        raise Unprocessable(where, "Input should be a valid datetime", "datetime_parsing") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def is_selected(job: Json, query: QueryParams) -> bool:
    """Whether a job passes the filters of a list."""
    metadata = job["metadata"] or {}
    if "created_after" in query and job["created_at"] <= parse_time(query["created_after"]):
        return False
    return all(metadata.get(name) == value for name, value in query.multi_items() if name not in LIST_FIELDS)
