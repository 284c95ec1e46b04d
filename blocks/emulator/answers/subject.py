"""Takes a prompt apart: the last JSON Schema in it, and the text that it is about."""

from json import JSONDecoder
from typing import Any, NamedTuple

DECODER = JSONDecoder()
MARK = '"properties"'
REJECTION = "Your previous answer"  # from here to the end there is a note on a rejected answer, not a text to read
# A line with such a word is an instruction, not a text to read.
INSTRUCTION_WORDS = ("JSON", "json", "chema", "our answer", "eine Antwort", "hre Antwort")
LABEL_LENGTH = 32
JSON_BEFORE_VALUE = ('":', '" :', "[", ",")
REMEMBERED = 8
REACH = 100_000  # how far before its last properties a schema may begin, in characters


class Span(NamedTuple):
    """A range of a text."""

    start: int
    end: int


class SchemaFinder:
    """Finds the last JSON Schema of a prompt. A job always has the same one, so recent ones are tried first."""

    def __init__(self) -> None:
        self._recent: tuple[str, ...] = ()

    def find(self, prompt: str) -> Span | None:
        """Where the schema is; None if there is none."""
        last_mark = prompt.rfind(MARK)
        if last_mark < 0:
            return None
        for text in self._recent:
            start = prompt.rfind(text, 0, last_mark + len(text))
            if start >= 0 and start < last_mark < start + len(text) and stands_alone(prompt, start):
                return Span(start, start + len(text))
        span = scan_for_schema(prompt, last_mark)
        if span is not None:
            self._remember(prompt[span.start : span.end])
        return span

    def _remember(self, text: str) -> None:
        others = tuple(other for other in self._recent if other != text)
        self._recent = (text, *others)[:REMEMBERED]


def stands_alone(prompt: str, start: int) -> bool:
    """Whether the object at `start` is not obviously a value inside another one."""
    return not prompt[max(0, start - 8) : start].rstrip().endswith(JSON_BEFORE_VALUE)


def scan_for_schema(prompt: str, last_mark: int) -> Span | None:
    """The last outermost JSON object that is a schema; braces in the text around it do no harm."""
    found = None
    position = prompt.find("{", max(0, last_mark - REACH))
    while 0 <= position <= last_mark:
        value, end = decode_at(prompt, position)
        if is_schema(value):
            found = Span(position, end)
        inside = value is not None and not is_schema(value) and MARK in prompt[position:end]
        position = prompt.find("{", position + 1 if value is None or inside else end)
    return found


def decode_at(prompt: str, position: int) -> tuple[Any, int]:
    """The JSON value at a position and its end; None and the position itself if there is none."""
    try:
        return DECODER.raw_decode(prompt, position)
    except (ValueError, RecursionError):
        return None, position


def is_schema(value: Any) -> bool:
    """Whether a value is the schema of an object."""
    if not isinstance(value, dict) or not isinstance(value.get("properties"), dict):
        return False
    kind = value.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind)


def subject_of(prompt: str, schema: Span | None) -> str:
    """The text that a prompt is about, judged by its form: from its last label on, else its last paragraph."""
    if schema is None:
        return passage(without_note(prompt)) or prompt.strip()
    before, after = prompt[: schema.start], prompt[schema.end :]
    return max(passage(without_note(before)), passage(without_note(after)), key=len)


def without_note(part: str) -> str:
    """A part up to the note on a rejected answer, if there is one."""
    return part.partition(REJECTION)[0]


def passage(part: str) -> str:
    """A part without its instructions: from the last paragraph that begins with a label on, else the last one."""
    if not part:
        return ""
    paragraphs = without_instructions(part).strip().split("\n\n")
    for at in reversed(range(len(paragraphs))):
        if label := label_length(paragraphs[at]):
            return "\n\n".join(paragraphs[at:])[label:].lstrip()
    lines = paragraphs[-1].split("\n")
    labelled = next((at for at, line in enumerate(lines) if label_length(line)), 0)
    return "\n".join(lines[labelled:])[label_length(lines[labelled]) :].lstrip()


def label_length(text: str) -> int:
    """The length of the label that a text begins with, as in `Review: ...`; 0 if there is none."""
    colon = text.find(":", 0, LABEL_LENGTH)
    if colon > 0 and text[0].isalpha() and text[colon + 1 : colon + 2] in ("", " ", "\n") and "\n" not in text[:colon]:
        return colon + 1
    return 0


def without_instructions(part: str) -> str:
    """A part without its lines that are instructions."""
    for word in INSTRUCTION_WORDS:
        while (at := part.find(word)) >= 0:
            end = part.find("\n", at)
            part = part[: part.rfind("\n", 0, at) + 1] + ("" if end < 0 else part[end + 1 :])
    return part
