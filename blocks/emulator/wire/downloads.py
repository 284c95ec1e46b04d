"""Downloads of files, one piece at a time, and what may go wrong with them."""

from collections.abc import Iterator, Sequence

from starlette.responses import Response, StreamingResponse

from blocks.emulator.service.batch import Batch
from blocks.emulator.service.faults import is_nth
from blocks.emulator.service.files import StoredFile
from blocks.emulator.service.service import Service
from blocks.emulator.wire.breaking import CutResponse, OpenEnded
from blocks.emulator.wire.lines import Json
from blocks.emulator.wire.tampering import PAGE, bomb, tampered, tampers


def answer_file(service: Service, file: StoredFile) -> Response:
    """A file's content, or what comes in its place if a fault is switched on."""
    options, number = service.options, service.store.count("downloads")
    name = file.name.encode("ascii", "replace").decode().replace('"', "'")
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    if is_nth(number, options.page_every):
        return Response(PAGE, media_type="text/html")
    if is_nth(number, options.bomb_every):
        return StreamingResponse(bomb(), headers={**headers, "content-encoding": "gzip"})
    content: Iterator[bytes] = service.store.files.content(file)
    size = file.bytes
    if tampers(options):
        changed = tampered(options, b"".join(content), number)
        content, size = iter([changed]), len(changed)
    if is_nth(number, options.open_end_every):
        return OpenEnded(b"".join(content)[: size // 2])
    kind = CutResponse if is_nth(number, options.cut_every) else StreamingResponse
    sized = {"content-length": str(size), **headers}
    return kind(content, headers=sized, media_type="application/octet-stream")


def with_named_files(service: Service, batch: Batch, shown: Json, names: Sequence[str]) -> Json:
    """A batch whose files are named late, or by an object, if that is switched on."""
    options = service.options
    if options.late_file and service.now() < batch.ended_at + options.late_file:
        return {**shown, **dict.fromkeys(names)}
    if options.file_objects:
        return {**shown, **{name: {"id": shown[name], "object": "file"} for name in names if shown[name]}}
    return shown
