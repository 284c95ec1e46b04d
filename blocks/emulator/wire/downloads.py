"""Downloads of files, one piece at a time."""

from starlette.responses import Response, StreamingResponse

from blocks.emulator.service.files import StoredFile
from blocks.emulator.service.service import Service
from blocks.emulator.wire.breaking import CutResponse


def answer_file(service: Service, file: StoredFile) -> Response:
    """A file's content, which breaks off in the middle if the fault is switched on."""
    kind = CutResponse if service.download_is_cut() else StreamingResponse
    name = file.name.encode("ascii", "replace").decode().replace('"', "'")
    headers = {"content-length": str(file.bytes), "content-disposition": f'attachment; filename="{name}"'}
    return kind(service.store.files.content(file), headers=headers, media_type="application/octet-stream")
