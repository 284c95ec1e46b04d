"""Answers with results: downloads of files, one piece at a time, or JSON, and what may go wrong with them."""

from collections.abc import Iterator, Sequence
from typing import Any

from starlette.responses import Response, StreamingResponse

from blocks.emulator.service.batch import Batch
from blocks.emulator.service.faults import is_nth
from blocks.emulator.service.files import StoredFile
from blocks.emulator.service.service import Service
from blocks.emulator.wire.breaking import CutResponse, OpenEnded
from blocks.emulator.wire.calls import JsonResponse
from blocks.emulator.wire.lines import Json
from blocks.emulator.wire.tampering import PAGE, bomb, endless, tampered, tampered_rows, tampers

JSON = "application/json"


def answer_file(service: Service, file: StoredFile) -> Response:
    """A file's content, or what comes in its place if a fault is switched on."""
    options, number = service.options, service.store.count("downloads")
    if (instead := _instead(service, number)) is not None:
        return instead
    name = file.name.encode("ascii", "replace").decode().replace('"', "'")
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    content: Iterator[bytes] = service.store.files.content(file)
    size = file.bytes
    if tampers(options):
        changed = tampered(options, b"".join(content), number)
        content, size = iter([changed]), len(changed)
    if is_nth(number, options.open_end_every):
        return OpenEnded(b"".join(content)[: size // 2])
    if is_nth(number, options.endless_every):
        return StreamingResponse(endless(content), headers=headers, media_type="application/octet-stream")
    kind = CutResponse if is_nth(number, options.cut_every) else StreamingResponse
    sized = {"content-length": str(size), **headers}
    return kind(content, headers=sized, media_type="application/octet-stream")


def answer_results(service: Service, shown: Json) -> Response:
    """JSON that has results in it, or what comes in its place if a fault is switched on."""
    options, number = service.options, service.store.count("downloads")
    if (instead := _instead(service, number)) is not None:
        return instead
    whole = JsonResponse(shown)
    body = bytes(whole.body)
    if is_nth(number, options.open_end_every):
        return OpenEnded(body[: len(body) // 2], media_type=JSON)
    if is_nth(number, options.cut_every):
        return CutResponse(iter([body]), headers={"content-length": str(len(body))}, media_type=JSON)
    return whole


def with_faults(service: Service, rows: list[Any]) -> list[Any]:
    """Results as an answer in JSON has them, changed as the options want it."""
    if not tampers(service.options):
        return rows
    return tampered_rows(service.options, rows, service.store.count("readings"))


def _instead(service: Service, number: int) -> Response | None:
    """What comes in the place of the results."""
    if is_nth(number, service.options.page_every):
        return Response(PAGE, media_type="text/html")
    if is_nth(number, service.options.bomb_every):
        return StreamingResponse(bomb(), headers={"content-encoding": "gzip"})
    return None


def with_named_files(service: Service, batch: Batch, shown: Json, names: Sequence[str]) -> Json:
    """A batch whose files are named late, or by an object, if that is switched on."""
    options = service.options
    if options.late_file and service.now() < batch.ended_at + options.late_file:
        return {**shown, **dict.fromkeys(names)}
    if options.file_objects:
        return {**shown, **{name: {"id": shown[name], "object": "file"} for name in names if shown[name]}}
    return shown
