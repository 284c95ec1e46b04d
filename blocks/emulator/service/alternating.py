"""The habit of servers with strict chat templates: a request with two messages of one role in a row can only fail."""

from blocks.emulator.service.batch import Request, Requests

ROLES = "Conversation roles must alternate user/assistant/user/assistant/..."


class Alternating:
    """Requests as such a server takes them."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def __len__(self) -> int:
        return len(self._requests)

    def __getitem__(self, index: int, /) -> Request:
        request = self._requests[index]
        return request._replace(rejection=request.rejection or ROLES) if request.repeats_role else request
