"""Write `reviews.parquet`: 500 invented product reviews, German and English, the same bytes each time.

    python data/make_reviews.py            write the file anew
    python data/make_reviews.py --check    exit 1 if the file differs from what would be written

The phrases stand in `phrases/`. A review is an opening, what the product does well or badly in the measure
of its rating, and a closing; some are written by hand. Afterwards some rows get what real data has: repeats,
nulls, blanks, emoji, typing mistakes, the hour that comes twice when summer time ends.
"""

import argparse
import logging
import random
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

HERE = Path(__file__).resolve().parent
OUTPUT = HERE / "reviews.parquet"
SEED = 20261122
BERLIN = ZoneInfo("Europe/Berlin")
FIRST_DAY = datetime(2024, 1, 2, tzinfo=BERLIN)
DAYS = 1030  # up to the end of October 2026

ROWS = {"de": 300, "en": 200}
REPOSTS = {"de": 12, "en": 8}  # the same text for the same product, sent twice
SAME_WORDS = {"de": 3, "en": 2}  # "Top!" for another product
NULLS = {"de": 2, "en": 1}
BLANKS = {"de": "", "en": "   \n"}
EMOJI = {"de": 14, "en": 9}

Point = tuple[str, str]  # a theme's name and the tone in which it is spoken of

COLUMNS: dict[str, pa.DataType] = {
    "review_id": pa.string(),
    "product": pa.string(),
    "category": pa.string(),
    "language": pa.string(),
    "rating": pa.int8(),
    "reviewed_at": pa.timestamp("us", tz="Europe/Berlin"),
    "title": pa.string(),
    "text": pa.string(),
}
SCHEMA = pa.schema(COLUMNS)

log = logging.getLogger("make_reviews")


@dataclass(frozen=True)
class Review:
    product: str
    category: str
    language: str
    rating: int
    reviewed_at: datetime
    title: str | None
    text: str | None
    finished: bool = False  # nothing more is to be changed


@dataclass(frozen=True)
class Product:
    name: str
    category: str
    kind: str
    themes: tuple[str, ...]
    words: dict[str, str]  # what {Der}, {the}, {price} … stand for


@dataclass(frozen=True)
class Theme:
    """Sentences in praise, in mild and in plain complaint, and keywords for titles and lists."""

    plus: list[str]
    mild: list[str]
    minus: list[str]
    short_plus: list[str]
    short_minus: list[str]


class Phrases:
    """One language's phrases, read from its file."""

    def __init__(self, path: Path) -> None:
        raw: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        self.language: str = raw["language"]
        self.slots: dict[str, list[str]] = {name: block.splitlines() for name, block in raw["slots"].items()}
        self.products: list[Product] = [_product(self.language, row) for row in raw["products"]]
        self.openings: dict[str, list[str]] = {kind: block.splitlines() for kind, block in raw["openings"].items()}
        self.themes: dict[str, Theme] = {name: _theme(row) for name, row in raw["themes"].items()}
        self.common_themes: list[str] = raw["common_themes"].split()
        self.prefixes: dict[str, list[str]] = {name: block.splitlines() for name, block in raw["prefixes"].items()}
        self.join_but: str = raw["joins"]["but"]
        self.join_and: str = raw["joins"]["and"]
        # "Downside: the lid", but "Nachteil: Der Deckel".
        self.colon_lower: bool = raw["joins"].get("colon_lower", False)
        self.lower = frozenset(raw["joins"]["lower"].split())
        self.list_heads: list[str] = raw["list_heads"].split("|")
        self.closings: dict[int, list[str]] = {rating: block.splitlines() for rating, block in raw["closings"].items()}
        self.titles: dict[int, list[str]] = {rating: line.split("|") for rating, line in raw["titles"].items()}
        self.tiny: dict[int, list[str]] = {rating: line.split("|") for rating, line in raw["tiny"].items()}
        self.emoji: dict[str, list[str]] = {mood: line.split("|") for mood, line in raw["emoji"].items()}
        self.specials: list[dict[str, Any]] = raw["specials"]


def _theme(row: dict[str, str]) -> Theme:
    lines = {name: row[name].splitlines() for name in ("plus", "mild", "minus")}
    return Theme(**lines, short_plus=row["short_plus"].split("|"), short_minus=row["short_minus"].split("|"))


def _product(language: str, row: dict[str, str]) -> Product:
    words = _german_words(row) if language == "de" else _english_words(row)
    return Product(row["name"], row["category"], row["kind"], tuple(row["themes"].split()), words)


def _german_words(row: dict[str, str]) -> dict[str, str]:
    articles = {"m": "der den dem er ihn ihm", "f": "die die der sie sie ihr", "n": "das das dem es es ihm"}
    der, den, dem, er, ihn, ihm = articles[row["gender"]].split()
    words = {name: f"{article} {row['noun']}" for name, article in (("der", der), ("den", den), ("dem", dem))}
    return words | {"er": er, "ihn": ihn, "ihm": ihm, "price": f"{row['price']} €"}


def _english_words(row: dict[str, str]) -> dict[str, str]:
    return {"the": f"the {row['noun']}", "it": row.get("it", "it"), "price": f"€{row['price']}"}


def capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]


class Writer:
    """Writes reviews in one language."""

    def __init__(self, phrases: Phrases, rng: random.Random) -> None:
        self.phrases = phrases
        self.rng = rng

    def review(self) -> Review:
        rng = self.rng
        product = rng.choice(self.phrases.products)
        rating = rng.choices((5, 4, 3, 2, 1), (38, 25, 13, 10, 14))[0]
        themes = self._pick_themes(product, rating)
        points = list(zip(themes, self._tones(rating, len(themes)), strict=True))
        text = self._text(product, rating, points)
        title = self._title(rating, points)
        if title and text.startswith(title):
            title = None
        return Review(product.name, product.category, self.phrases.language, rating, self._when(), title, text)

    def specials(self) -> Iterator[Review]:
        """The reviews written by hand."""
        categories = {product.name: product.category for product in self.phrases.products}
        for row in self.phrases.specials:
            yield Review(
                product=row["product"],
                category=categories[row["product"]],
                language=self.phrases.language,
                rating=row["rating"],
                reviewed_at=self._when(),
                title=row["title"],
                text=row["text"],
                finished=True,
            )

    def _when(self) -> datetime:
        hour = self.rng.choices(range(24), (2, 1, 1, 1, 1, 2, *[5] * 6, *[6] * 6, *[10] * 5, 5))[0]
        day = FIRST_DAY + timedelta(days=self.rng.randrange(DAYS))
        return day.replace(hour=hour, minute=self.rng.randrange(60), second=self.rng.randrange(60))

    def _pick_themes(self, product: Product, rating: int) -> list[str]:
        """Themes of the product first, in any order, then perhaps delivery, price or service."""
        own = self.rng.sample(product.themes, len(product.themes))
        most = 2 if rating == 1 else len(own)
        picked = own[: self.rng.randint(1, most)]
        share = 0.5 if len(picked) > 2 else 0.2
        common = self.rng.sample(self.phrases.common_themes, 2)
        return picked + [name for name in common if self.rng.random() < share]

    def _text(self, product: Product, rating: int, points: list[Point]) -> str:
        form = self.rng.random()
        if form < 0.03:
            return self.rng.choice(self.phrases.tiny[rating])
        if form < 0.1 and rating != 4:
            return self._keywords(rating, points)
        if form < 0.14 and len(points) >= 3 and rating != 4:
            return self._list(rating, points)
        if form < 0.32:
            return self._fill(self._body(points[:2]), product)
        opening = [self.rng.choice(self._openings(product, rating))] if self.rng.random() < 0.75 else []
        closing = [self.rng.choice(self.phrases.closings[rating])] if self.rng.random() < 0.7 else []
        return self._fill(opening + self._body(points) + closing, product)

    def _openings(self, product: Product, rating: int) -> list[str]:
        moods = {5: "_good", 4: "_good", 1: "_bad"}
        openings = self.phrases.openings
        return openings[product.kind] + openings.get(f"{product.kind}{moods.get(rating)}", [])

    def _tones(self, rating: int, count: int) -> list[str]:
        """How each theme is spoken of: plus, mild, minus, or with a turn of phrase (but, though)."""
        if rating == 5:
            last = "but" if count > 2 and self.rng.random() < 0.25 else "plus"
            return ["plus"] * (count - 1) + [last]
        if rating == 4:
            return ["plus"] * (count - 1) + ["but" if count > 1 else "plus"]
        if rating == 3:
            first = self.rng.choice((0, 1))
            return ["but" if (i + first) % 2 else "plus" for i in range(count)] if count > 1 else ["mild"]
        if rating == 2:
            return ["minus", "mild", *(["though"] if count > 2 else []), *["minus"] * count][:count]
        return ["minus"] * count

    def _body(self, points: list[Point]) -> list[str]:
        """A sentence or two for each point."""
        sentences: list[str] = []
        tone_before = ""
        for name, tone in points:
            first, *more = self._sentences(self.phrases.themes[name], tone, name not in self.phrases.common_themes)
            turn = tone in {"but", "though"} and bool(sentences) and tone != tone_before
            sentences += [self._turn(tone, sentences, first) if turn else first, *more]
            tone_before = tone
        return self._link(sentences) if points[0][1] != "but" else sentences  # no "and" from bad to good

    def _sentences(self, theme: Theme, tone: str, may_be_two: bool) -> list[str]:
        pools = {"plus": theme.plus, "though": theme.plus, "minus": theme.minus}
        pool = pools.get(tone, theme.mild)
        two = may_be_two and tone == "plus" and len(pool) > 1 and self.rng.random() < 0.4
        return self.rng.sample(pool, 2 if two else 1)

    def _turn(self, tone: str, before: list[str], sentence: str) -> str:
        """Mark the change from praise to complaint, or back: "…, but …" or "Only downside: …"."""
        conjunction = self.phrases.join_but
        plain = not any(sign in before[-1] + sentence for sign in (":", conjunction)) and before[-1].endswith(".")
        if plain and self._may_follow(sentence) and self.rng.random() < 0.45:
            return self._join(before.pop(), conjunction, sentence)
        if self.phrases.colon_lower and self._may_follow(sentence):
            sentence = self._lowered(sentence)
        return f"{self.rng.choice(self.phrases.prefixes[tone])} {sentence}"

    def _link(self, sentences: list[str]) -> list[str]:
        """Join a sentence to a short one before it now and then, so that not all are equally long."""
        linked: list[str] = []
        for sentence in sentences:
            short = bool(linked) and len(linked[-1]) < 60 and linked[-1].endswith(".")
            plain = short and not re.search("[,:]", linked[-1] + sentence)
            if plain and self._may_follow(sentence) and self.rng.random() < 0.35:
                linked.append(self._join(linked.pop(), self.phrases.join_and, sentence))
            else:
                linked.append(sentence)
        return linked

    def _may_follow(self, sentence: str) -> bool:
        first = re.match(r"\{?\w+\}?", sentence)
        return first is not None and (first[0].startswith("{") or first[0] in self.phrases.lower)

    def _join(self, before: str, conjunction: str, sentence: str) -> str:
        return before.removesuffix(".") + conjunction + self._lowered(sentence)

    @staticmethod
    def _lowered(sentence: str) -> str:
        start = 1 if sentence.startswith("{") else 0
        return sentence[:start] + sentence[start].lower() + sentence[start + 1 :]

    def _keywords(self, rating: int, points: list[Point]) -> str:
        goods, bads = self._shorts(rating, points[:3])
        text = capitalize(", ".join(goods + bads)) + self.rng.choice((".", ".", "", "!"))
        closing = self._spell(self.rng.choice(self.phrases.closings[rating]))
        return f"{text} {closing}" if text[-1] in ".!" and self.rng.random() < 0.6 else text

    def _list(self, rating: int, points: list[Point]) -> str:
        goods, bads = self._shorts(rating, points)
        head = self.rng.choice(self.phrases.list_heads)
        closing = self._spell(self.rng.choice(self.phrases.closings[rating]))
        return "\n".join([*([head] if head else []), *(f"+ {x}" for x in goods), *(f"- {x}" for x in bads), closing])

    def _shorts(self, rating: int, points: list[Point]) -> tuple[list[str], list[str]]:
        """The themes in keywords: what is good, what is bad."""
        praised = [self.phrases.themes[name] for name, tone in points if tone in {"plus", "though"} or rating == 5]
        blamed = [self.phrases.themes[name] for name, tone in points if tone not in {"plus", "though"} and rating < 5]
        return (
            [self.rng.choice(theme.short_plus) for theme in praised],
            [self.rng.choice(theme.short_minus) for theme in blamed],
        )

    def _title(self, rating: int, points: list[Point]) -> str | None:
        """A title of the rating's, or keywords of what the text praises or plainly complains about."""
        kind = self.rng.random()
        if kind < 0.1:
            return None
        if kind < 0.55 or rating == 3:
            return self.rng.choice(self.phrases.titles[rating])
        tone = "plus" if rating >= 4 else "minus"
        themes = [self.phrases.themes[name] for name, of in points[:2] if of == tone]
        words = [self.rng.choice(theme.short_plus if rating >= 4 else theme.short_minus) for theme in themes]
        return capitalize(", ".join(words) if self.rng.random() < 0.6 else words[0])

    def _fill(self, sentences: list[str], product: Product) -> str:
        """Choose among alternatives, put in the product's words, break some long texts into lines."""
        spelled = [self._spell(sentence) for sentence in sentences]
        for i in range(1, len(spelled)):
            # Named just before: a pronoun instead of the noun.
            if re.search(r"\{([Dd]e[rnm]|[Ee]r)\}", spelled[i - 1]):
                spelled[i] = re.sub(r"^\{Der\}", "{Er}", spelled[i])
        text = " ".join(spelled)
        if len(spelled) > 5 and self.rng.random() < 0.4:
            at = self.rng.randint(2, len(spelled) - 1)
            text = self.rng.choice(("\n", "\n\n")).join((" ".join(spelled[:at]), " ".join(spelled[at:])))

        def word(match: re.Match[str]) -> str:
            name = match[1]
            key = name[0].lower() + name[1:]
            value = product.words.get(key) or self.rng.choice(self.phrases.slots[key])
            return capitalize(value) if name[0].isupper() else value

        filled = re.sub(r"\{(\w+)\}", word, text)
        return re.sub(r"(^|[.!?]\s+)(\w)", lambda match: match[1] + match[2].upper(), filled)

    def _spell(self, text: str) -> str:
        return re.sub(r"\[([^\]]*)\]", lambda match: self.rng.choice(match[1].split("|")), text)


def write_distinct(writer: Writer, count: int) -> list[Review]:
    """`count` reviews of which no two have the same text, the ones written by hand among them."""
    reviews = list(writer.specials())
    seen = {review.text for review in reviews}
    while len(reviews) < count:
        review = writer.review()
        if review.text not in seen:
            seen.add(review.text)
            reviews.append(review)
    return reviews


def change_some(reviews: list[Review], count: int, rng: random.Random, change: Callable[[Review], Review]) -> None:
    """Change `count` generated reviews that nothing was done to yet, in their places."""
    places = [i for i, review in enumerate(reviews) if not review.finished]
    for i in rng.sample(places, count):
        reviews[i] = replace(change(reviews[i]), finished=True)


def add_emoji(review: Review, phrases: Phrases, rng: random.Random) -> Review:
    mood = "good" if review.rating >= 4 else "so" if review.rating == 3 else "bad"
    return replace(review, text=f"{review.text} {rng.choice(phrases.emoji[mood])}")


def mistype(review: Review, rng: random.Random) -> Review:
    """Two neighbouring letters change places, in two words."""
    text = review.text or ""
    words = [match for match in re.finditer(r"[^\W\d_]{5,}", text) if len(set(match[0][1:3])) == 2]
    for match in rng.sample(words, min(2, len(words))):
        i = match.start() + 1
        text = text[:i] + text[i + 1] + text[i] + text[i + 2 :]
    return replace(review, text=text)


def without_umlauts(review: Review) -> Review:
    table = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss"})
    return replace(review, text=(review.text or "").translate(table))


def all_lower(review: Review) -> Review:
    return replace(review, text=(review.text or "").lower())


def disturb(reviews: list[Review], phrases: Phrases, rng: random.Random) -> None:
    """Give some rows the flaws that real reviews have."""
    language = phrases.language
    change_some(reviews, NULLS[language], rng, lambda review: replace(review, text=None))
    change_some(reviews, 1, rng, lambda review: replace(review, text=BLANKS[language]))
    change_some(reviews, EMOJI[language], rng, lambda review: add_emoji(review, phrases, rng))
    change_some(reviews, 5, rng, lambda review: mistype(review, rng))
    change_some(reviews, 3, rng, all_lower)
    change_some(reviews, 2, rng, lambda review: replace(review, text=f"{review.text}  "))
    if language == "de":
        change_some(reviews, 4, rng, without_umlauts)


def repeats(reviews: list[Review], phrases: Phrases, rng: random.Random) -> list[Review]:
    """Reviews sent a second time a little later, and the same few words for another product."""
    tiny = {text for texts in phrases.tiny.values() for text in texts}
    whole = [review for review in reviews if review.text and review.text.strip() and review.text not in tiny]
    again = [
        replace(review, reviewed_at=review.reviewed_at + timedelta(minutes=rng.randint(1, 40_000)))
        for review in rng.sample(whole, REPOSTS[phrases.language])
    ]
    few_words = [review for review in reviews if review.text in tiny]
    for review in rng.sample(few_words, SAME_WORDS[phrases.language]):
        other = rng.choice([product for product in phrases.products if product.name != review.product])
        later = review.reviewed_at + timedelta(days=rng.randint(3, 300))
        again.append(replace(review, product=other.name, category=other.category, reviewed_at=later, title=None))
    return again


def reviews_in(language: str, rng: random.Random) -> list[Review]:
    phrases = Phrases(HERE / "phrases" / f"{language}.yaml")
    again = REPOSTS[language] + SAME_WORDS[language]
    reviews = write_distinct(Writer(phrases, rng), ROWS[language] - again)
    disturb(reviews, phrases, rng)
    return reviews + repeats(reviews, phrases, rng)


def in_the_repeated_hour(reviews: list[Review]) -> list[Review]:
    """Two reviews fall into the hour from 2 to 3 that the clocks showed twice on 26 October 2025."""
    night = datetime(2025, 10, 26, 2, 40, 11, tzinfo=BERLIN)
    moments = (night, night.replace(minute=12, fold=1))
    return [replace(r, reviewed_at=at) for r, at in zip(reviews, moments, strict=False)] + reviews[2:]


def make_table() -> pa.Table:
    """All reviews by date, numbered with gaps, as a shop's numbers have them."""
    rng = random.Random(SEED)  # noqa: S311 - sample data, no secret
    reviews = in_the_repeated_hour([review for language in ROWS for review in reviews_in(language, rng)])
    reviews.sort(key=lambda review: review.reviewed_at.timestamp())
    number = 0
    rows = []
    for review in reviews:
        number += rng.randint(1, 9)
        rows.append({name: getattr(review, name) for name in SCHEMA.names[1:]} | {"review_id": f"R-{number:06}"})
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Write the sample reviews.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the file's content differs")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="default: reviews.parquet beside this script")
    arguments = parser.parse_args()
    table = make_table()
    if not arguments.check:
        pq.write_table(table, arguments.output, compression="zstd", compression_level=9)
        log.info("%s: %d reviews", arguments.output, table.num_rows)
        return 0
    if not arguments.output.exists() or not pq.read_table(arguments.output).equals(table):
        log.error("%s differs from what this script writes; run it without --check", arguments.output)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
