"""Reads a text with the lexicon: its tone, its language, its topics. Each is found once, when it is first needed."""

import re
from collections.abc import Callable
from itertools import islice
from typing import Any, Generic, TypeVar

from blocks.emulator.answers.lexicon import (
    ENGLISH_WORDS,
    FEATURE_WORDS,
    FEATURES,
    GERMAN_WORDS,
    NEGATIONS,
    POSITIVE,
    SENTIMENT_WORDS,
    TOPIC_WORDS,
    TOPICS,
    Label,
)

BETWEEN_WORDS = "\u201e\u201c\u201d\u201a\u2018\u2019\u2026\u2013\u2014"  # quotation marks, ellipsis, dashes
ASCII_WORDS = bytes(byte if byte >= 128 or chr(byte).isalnum() else 32 for byte in bytes(range(256)).lower())
LONG_WORD = re.compile(r"[^\W\d_]{6,24}")
NEGATION_REACH = 2  # words
MAX_LABELS = 4
SUMMARY_WORDS = 12
MASK = (1 << 64) - 1

Value = TypeVar("Value")


class found_once(Generic[Value]):  # noqa: N801  # used like `property`
    """`functools.cached_property` without the lock that Python 3.11 takes each time: a reading stays in one thread."""

    def __init__(self, find: Callable[[Any], Value]) -> None:
        self._find = find
        self._name = find.__name__

    def __get__(self, instance: Any, owner: type[Any]) -> Value:
        value = instance.__dict__[self._name] = self._find(instance)
        return value


class Reading:
    """A text, and a number derived from prompt and model that makes the choices that no word decides."""

    def __init__(self, text: str, number: int) -> None:
        self.text = text
        self._number = number

    @found_once
    def words(self) -> list[str]:
        """In lower case. Translating bytes is several times faster than a regular expression."""
        text = self.text.encode().translate(ASCII_WORDS).decode()
        if not text.isascii():
            text = text.lower()
            for mark in BETWEEN_WORDS:
                text = text.replace(mark, " ")
        return text.split()

    @found_once
    def vocabulary(self) -> set[str]:
        """The distinct words."""
        return set(self.words)

    @found_once
    def is_german(self) -> bool:
        """Whether more of its words are German than English; umlauts decide a tie."""
        german, english = len(self.vocabulary & GERMAN_WORDS), len(self.vocabulary & ENGLISH_WORDS)
        return german > english or (german == english and any(letter in self.text for letter in "äöüßÄÖÜ"))

    @found_once
    def praise_and_blame(self) -> tuple[int, int]:
        """The numbers of positive and negative words; a negation shortly before a word inverts it."""
        found = self.vocabulary & SENTIMENT_WORDS
        praise = found & POSITIVE
        if found and not self.vocabulary.isdisjoint(NEGATIONS):
            praise ^= {word for word in found if self._is_negated(word)}
        return len(praise), len(found) - len(praise)

    @found_once
    def tone(self) -> str:
        """`positive`, `negative`, `mixed` or `neutral`."""
        praise, blame = self.praise_and_blame
        if not praise and not blame:
            return "neutral"
        if praise == blame:
            return "mixed"
        return "positive" if praise > blame else "negative"

    @found_once
    def satisfaction(self) -> float:
        """The share of positive words, from 0 to 1."""
        praise, blame = self.praise_and_blame
        return (praise + 1) / (praise + blame + 2)

    @found_once
    def topics(self) -> list[str]:
        """What the text is about, in its language."""
        return self._labels(TOPIC_WORDS, TOPICS) or self.salient_words

    @found_once
    def features(self) -> list[str]:
        """What the text praises or blames, in its language."""
        return self._labels(FEATURE_WORDS, FEATURES) or self.salient_words

    @found_once
    def salient_words(self) -> list[str]:
        """The first long words of the text, in their original spelling."""
        longer = (word for word in LONG_WORD.findall(self.text) if word.lower() not in SENTIMENT_WORDS)
        return list(islice(dict.fromkeys(longer), MAX_LABELS - 1))

    @found_once
    def summary(self) -> str:
        """The first words of the text."""
        words = self.text.split(maxsplit=SUMMARY_WORDS)[:SUMMARY_WORDS]
        return " ".join(words) or self.pick_word("ohne Text", "no text")

    def pick_word(self, german: str, english: str) -> str:
        """One of two words, by the language of the text."""
        return german if self.is_german else english

    def choose(self, salt: int, count: int) -> int:
        """A number below `count` that depends only on prompt, model and the place in the answer."""
        return (((self._number ^ salt) * 0x9E3779B97F4A7C15 & MASK) >> 33) % count

    def _is_negated(self, word: str) -> bool:
        position = self.words.index(word)
        return not NEGATIONS.isdisjoint(self.words[max(0, position - NEGATION_REACH) : position])

    def _labels(self, known: frozenset[str], labels: dict[str, Label]) -> list[str]:
        """The labels of known words, in the order of the text and in its language."""
        found = self.vocabulary & known
        if not found:
            return []
        language = 1 if self.is_german else 0
        ordered = sorted(found, key=self.words.index)
        return list(islice(dict.fromkeys(labels[word][language] for word in ordered), MAX_LABELS))
