"""Uploads and creates: what OpenAI refuses at once."""

from typing import Any

from blocks.emulator.dialects.openai.bodies import FORMS
from blocks.emulator.wire.calls import CallError, parse_json
from blocks.emulator.wire.lines import Json
from blocks.emulator.wire.uploads import UploadForm

UPLOAD_FIELDS = ("purpose", "file")
REQUIRED_FIELDS = ("input_file_id", "endpoint", "completion_window")
CREATE_FIELDS = (*REQUIRED_FIELDS, "metadata")
MAX_PAIRS, MAX_KEY, MAX_VALUE = 16, 64, 512  # of metadata


class BadRequest(CallError):
    """An error that names the parameter; its status is 400 unless another is given."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(status, code or "", message)
        self.param = param


def check_upload(form: UploadForm) -> str:
    """The file's name. Raises BadRequest."""
    for name in form.fields:
        if name not in UPLOAD_FIELDS:
            raise BadRequest(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    for name in UPLOAD_FIELDS:
        if name not in form.fields:
            raise BadRequest(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
    if form.text("purpose") != "batch":
        raise BadRequest(f"'{form.text('purpose')}' is not 'batch', the only purpose known here", "purpose")
    if form.too_long:
        raise BadRequest(f"the file is too long: {form.size} bytes", "file", status=413)
    if not form.filename:
        raise BadRequest("the file has no name", "file")
    if not form.filename.endswith(".jsonl"):
        raise BadRequest("Invalid file format for Batch API. Must be .jsonl")
    return form.filename


def parse_create(body: bytes) -> Json:
    """The fields of a create (§3.4). Raises CallError."""
    order = parse_json(body)
    if not isinstance(order, dict):
        raise BadRequest("the body must be a JSON object")
    for name in order:
        if name not in CREATE_FIELDS:
            raise BadRequest(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    for name in REQUIRED_FIELDS:
        if not isinstance(order.get(name), str):
            raise BadRequest(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
    if order["endpoint"] not in FORMS:
        problem = f"'{order['endpoint']}' is not one of {list(FORMS)}, which the emulator speaks"
        raise BadRequest(f"Invalid value: {problem}.", "endpoint", "invalid_value")
    if order["completion_window"] != "24h":
        raise BadRequest("Invalid value: completion_window must be '24h'.", "completion_window", "invalid_value")
    check_metadata(order.get("metadata"))
    return order


def check_metadata(metadata: Any) -> None:
    """Raises BadRequest for metadata beyond OpenAI's limits."""
    if metadata is None:
        return
    if not isinstance(metadata, dict) or len(metadata) > MAX_PAIRS:
        raise BadRequest(f"metadata must be an object of at most {MAX_PAIRS} pairs", "metadata")
    for key, value in metadata.items():
        if len(key) > MAX_KEY:
            raise BadRequest(f"a key of metadata has more than {MAX_KEY} characters", "metadata")
        if not isinstance(value, str) or len(value) > MAX_VALUE:
            raise BadRequest(f"metadata.{key} must be a string of at most {MAX_VALUE} characters", f"metadata.{key}")
