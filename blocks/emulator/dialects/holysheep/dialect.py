"""HolySheep AI's batch dialect, following its only public tutorial.

Choices of this project, where it is silent: `Idempotency-Key` as a header, reading results by offset and limit, and
cancelling. Results of a batch that has not ended are a 409 `not_ready`. `total_items` of a
page counts the results that there are, missing ones left out. What was not billed shows no
tokens; `cost_usd` is null until a batch has ended, and for models without a known price.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as Call
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from blocks.emulator.service.batch import BILLED, Batch, Item, NewBatch, Outcome, Request
from blocks.emulator.service.faults import UNKNOWN_STATUS
from blocks.emulator.service.service import Accepted, Service
from blocks.emulator.service.store import KeyReusedError
from blocks.emulator.wire.calls import (
    CallError,
    JsonResponse,
    hash_body,
    parse_json,
    query_number,
    read_body,
    require_bearer,
)
from blocks.emulator.wire.creates import answer_create, refuse_by_rate
from blocks.emulator.wire.downloads import answer_results
from blocks.emulator.wire.lines import Json, dump
from blocks.emulator.wire.tampering import tampered_rows, tampers

PRIORITIES = ("low", "normal", "high")
MAX_REQUESTS = 10_000
MAX_BYTES = 64 << 20  # of one create
INLINE_RESULTS = 100  # batches up to this size contain their results
MAX_PAGE, PAGE = 1000, 100  # results
MILLION = 1_000_000
BATCH_PRICES = {  # USD per million tokens, flat on input and output, as the tutorial quotes them
    "claude-sonnet-4-5": Decimal("7.50"),
    "gpt-4-1": Decimal("4"),
    "deepseek-v3-2": Decimal("0.21"),
}
ITEM_ERRORS = {
    Outcome.FAILED: ("server_error", "the request could not be processed"),
    Outcome.UNEXPLAINED: ("server_error", "unknown error"),
    Outcome.TIMED_OUT: ("timeout", "the model took too long"),
    Outcome.REFUSED: ("content_policy", "the request was refused for its content"),
    Outcome.CANCELLED: ("cancelled", "the batch was cancelled before this request was processed"),
    Outcome.EXPIRED: ("expired", "the batch expired before this request was processed"),
}


class Dialect:
    """Routes below `/v1`."""

    base_path = "/v1"

    def __init__(self, service: Service) -> None:
        self._service = service
        self._options = service.options
        self._max_requests = service.options.max_requests or MAX_REQUESTS
        self._max_bytes = service.options.max_bytes or MAX_BYTES

    def routes(self) -> list[BaseRoute]:
        """Batches and their results."""
        base = self.base_path
        return [
            Route(f"{base}/batches", self.create_batch, methods=["POST"]),
            Route(f"{base}/batches/{{batch_id}}", self.show_batch, methods=["GET"]),
            Route(f"{base}/batches/{{batch_id}}/results", self.show_results, methods=["GET"]),
            Route(f"{base}/batches/{{batch_id}}/cancel", self.cancel_batch, methods=["POST"]),
        ]

    def headers(self) -> dict[str, str]:
        """No additional headers."""
        return {}

    def error_body(self, error: CallError) -> object:
        """`{"error": {"code", "message"}}`."""
        return {"error": {"code": error.code, "message": error.message}}

    async def create_batch(self, call: Call) -> Response:
        """POST /batches."""
        body = await read_body(call, self._max_bytes)
        accepted = await run_in_threadpool(self._accept, call, body)
        batch = accepted.batch
        answer = {"batch_id": batch.id, "status": "queued", "total_items": batch.total}
        return await answer_create(self._service, accepted, JsonResponse(answer))

    def show_batch(self, call: Call) -> Response:
        """GET /batches/{id}."""
        return JsonResponse(self._batch_with_results(self._find(call)))

    def show_results(self, call: Call) -> Response:
        """GET /batches/{id}/results: a page of them."""
        batch = self._find(call)
        offset = query_number(call.query_params, "offset", 0, 0, 10**15)
        limit = query_number(call.query_params, "limit", PAGE, 1, MAX_PAGE)
        if batch.status is None:
            status = self._service.status(batch)
            raise CallError(409, "not_ready", f"batch {batch.id} is {status}; results are available after it has ended")
        if self._service.results_are_gone(batch):
            raise CallError(404, "not_found", f"the results of batch {batch.id} are no longer kept")
        limit = min(limit, self._options.results_page or limit)
        start = self._service.slipped(batch, offset, limit)
        page = {"results": self._page(batch, start, limit), "offset": offset}
        return answer_results(self._service, {**page, "total_items": batch.total - batch.missing})

    def _page(self, batch: Batch, start: int, limit: int) -> list[Any]:
        """Some of the results; the order is the same for all pages of a batch, whatever was done to it."""
        if not tampers(self._options):
            return [self._item_json(item) for item in self._service.items(batch, start, limit)]
        items = [self._item_json(item) for item in self._service.items(batch, 0, batch.total)]
        return tampered_rows(self._options, items, batch.number)[start : start + limit]

    def cancel_batch(self, call: Call) -> Response:
        """POST /batches/{id}/cancel; a batch that has ended stays as it is."""
        return JsonResponse(self._batch_with_results(self._service.cancel(self._find(call))))

    def _accept(self, call: Call, body: bytes | None) -> Accepted:
        require_bearer(call, self._options.key)
        refuse_by_rate(self._service)
        if body is None:
            raise CallError(413, "too_large", f"the body has more than {self._max_bytes} bytes")
        new = self._parse_create(body, call.headers.get("idempotency-key"))
        try:
            return self._service.accept(new)
        except KeyReusedError:
            raise CallError(
                409, "idempotency_conflict", "this Idempotency-Key was used before with another body"
            ) from None

    def _parse_create(self, body: bytes, idempotency_key: str | None) -> NewBatch:
        content = parse_json(body)
        if not isinstance(content, dict):
            raise bad_request("the body must be a JSON object")
        model = content.get("model")
        if not isinstance(model, str) or not model:
            raise bad_request("model is missing or not a string")
        priority = content.get("priority", "normal")
        if priority not in PRIORITIES:
            raise bad_request(f"priority must be one of {', '.join(PRIORITIES)}, not {priority!r}")
        requests = parse_requests(content.get("requests"), model, self._max_requests)
        return NewBatch(model, requests, hash_body(body), idempotency_key, dump({"priority": priority}))

    def _find(self, call: Call) -> Batch:
        require_bearer(call, self._options.key)
        batch_id = call.path_params["batch_id"]
        batch = self._service.batch(batch_id)
        if batch is None:
            raise CallError(404, "not_found", f"there is no batch {batch_id!r}")
        return batch

    def _batch_with_results(self, batch: Batch) -> Json:
        shown = self._batch_json(batch)
        if self._service.shows_unknown_status(batch):
            return {**shown, "status": UNKNOWN_STATUS}
        if batch.status is not None and batch.total <= INLINE_RESULTS and not self._service.results_are_gone(batch):
            shown["results"] = [self._item_json(item) for item in self._service.items(batch, 0, INLINE_RESULTS)]
        return shown

    def _item_json(self, item: Item) -> Json:
        shown = item_json(item)
        return {**shown, "usage": None} if self._service.usage_is_missing(item) else shown

    def _batch_json(self, batch: Batch) -> Json:
        return {
            "batch_id": batch.id,
            "status": self._service.status(batch),
            "progress": self._service.progress(batch),
            "error": batch.error,
            "total_items": batch.total,
            "succeeded": batch.succeeded,
            "failed": batch.failed,
            "cost_usd": cost_json(batch),
            "duration_seconds": round(self._service.duration(batch), 3),
            "model": batch.model,
            "priority": orjson.loads(batch.details)["priority"],
            "created_at": round(batch.schedule.created_at, 3),
        }


def bad_request(message: str) -> CallError:
    """A 400."""
    return CallError(400, "invalid_request", message)


def parse_requests(items: Any, model: str, max_requests: int) -> Sequence[Request]:
    """Raises CallError (400) with the first mistake."""
    if not isinstance(items, list) or not items:
        raise bad_request("requests must be a list with at least one request")
    if len(items) > max_requests:
        raise CallError(400, "too_many_requests", f"a batch takes at most {max_requests} requests, not {len(items)}")
    requests = [parse_request(index, item, model) for index, item in enumerate(items)]
    if len({request.custom_id for request in requests}) < len(requests):
        raise bad_request(duplicate_message(requests))
    return requests


def parse_request(index: int, item: Any, model: str) -> Request:
    """Raises CallError (400)."""
    if not isinstance(item, dict):
        raise bad_request(f"requests[{index}] must be an object")
    custom_id, prompt = item.get("custom_id"), item.get("prompt")
    if not isinstance(custom_id, str) or not custom_id:
        raise bad_request(f"requests[{index}].custom_id is missing, empty or not a string")
    if not isinstance(prompt, str):
        raise bad_request(f"requests[{index}].prompt is missing or not a string")
    return Request(custom_id, prompt, model)


def duplicate_message(requests: Sequence[Request]) -> str:
    """Names the first two requests that have the same id."""
    first: dict[str, int] = {}
    for index, request in enumerate(requests):
        if request.custom_id in first:
            return f"requests[{index}].custom_id {request.custom_id!r} is that of requests[{first[request.custom_id]}]"
        first[request.custom_id] = index
    raise AssertionError("no duplicate")


def item_json(item: Item) -> Json:
    """A result."""
    error = None
    if item.outcome not in BILLED:
        code, message = ITEM_ERRORS[item.outcome]
        error = {"code": code, "message": message}
    return {
        "custom_id": item.custom_id,
        "status": "error" if error else "success",
        "original_prompt": item.prompt,
        "response": None if error else item.text,
        "usage": {"input_tokens": item.input_tokens, "output_tokens": item.output_tokens},
        "error": error,
    }


def cost_json(batch: Batch) -> orjson.Fragment | None:
    """Exact to the last digit; None until a batch has ended, and for models without a price."""
    price = BATCH_PRICES.get(model_name(batch.model))
    if price is None or batch.status is None:
        return None
    cost = price * (batch.input_tokens + batch.output_tokens) / MILLION
    return orjson.Fragment(f"{cost.normalize():f}")


def model_name(model: str) -> str:
    """`Claude Sonnet 4.5` and `claude-sonnet-4-5` are one model."""
    return model.lower().replace(" ", "-").replace(".", "-")
