"""Prompts: which columns they use, what they refuse, and that many at once read like one by one."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.errors import UsageError
from flows.domain.prompts import SEPARATOR, Prompt, Unrenderable, blank

COLUMNS = ["text", "rating", "Review Text", "tags"]


def rendered(source: str, **columns: list[Any]) -> list[str | Unrenderable]:
    prompt = Prompt(source, list(columns))
    return prompt.render([columns[name] for name in prompt.columns])


def one_by_one(source: str, **columns: list[Any]) -> list[str | Unrenderable]:
    """Each row on its own, as a batch of one."""
    rows = zip(*columns.values(), strict=True)
    return [rendered(source, **{name: [value] for name, value in zip(columns, row, strict=True)})[0] for row in rows]


@pytest.mark.parametrize(
    ("source", "columns"),
    [
        ("{{ text }}", ["text"]),
        ("{{ rating }} {{ text }} {{ rating }}", ["text", "rating"]),
        ('{{ row["Review Text"] }}', ["Review Text"]),
        ("{{ row['Review Text'] }}{{ text }}", ["text", "Review Text"]),
        ("{{ row.rating }}", ["rating"]),
        ("{% if rating > 3 %}{{ text }}{% endif %}", ["text", "rating"]),
        ("{% for tag in tags %}{{ tag }}{% endfor %}", ["tags"]),
        ("{{ text | default(rating) }}", ["text", "rating"]),
        ("{% set name = text %}{{ name }}", ["text"]),
        ("{% macro m() %}{{ text }}{% endmacro %}{{ m() }}", ["text"]),
        ("{{ row[text] }}", COLUMNS),
        ("{{ row | tojson }}", COLUMNS),
        ("{% for name, value in row.items() %}{{ name }}{% endfor %}", COLUMNS),
        ("{{ row.get('text') }}", COLUMNS),
        ("{% set r = row %}{{ r.text }}", COLUMNS),
    ],
)
def test_a_prompt_knows_the_columns_that_it_uses(source: str, columns: list[str]) -> None:
    """Only these are part of a row's key; where that can't be told, all are."""
    assert Prompt(source, COLUMNS).columns == columns


def test_an_unknown_column_is_refused_with_the_nearest_name() -> None:
    """A typing error is found before anything is planned."""
    with pytest.raises(UsageError, match=r"'txt' that the input does not have; did you mean 'text'\?"):
        Prompt("{{ txt }}", COLUMNS)
    with pytest.raises(UsageError, match=r"'Review text'.*did you mean 'Review Text'"):
        Prompt('{{ row["Review text"] }}', COLUMNS)
    with pytest.raises(UsageError, match="it has: text, rating, Review Text, tags"):
        Prompt("{{ completely_else }}", COLUMNS)


def test_a_prompt_without_a_column_is_refused() -> None:
    """Every row would ask, and pay for, the same question."""
    with pytest.raises(UsageError, match="uses no column"):
        Prompt("Say hello.", COLUMNS)
    with pytest.raises(UsageError, match="uses no column"):
        Prompt("Say hello.", [])


@pytest.mark.parametrize(
    "source",
    [
        "{{ text",
        "{% if text %}",
        "{% for text %}",
        "{{ text | nosuchfilter }}",
        "{{ text | random }}",
        "{% do text %}",
        "{% for loop in text %}{{ loop }}{% endfor %}",
        "{{ loop.index }}{{ text }}",
        "{{ lipsum() }}{{ text }}",
        "{{ super() }}{{ text }}",
    ],
)
def test_a_template_that_is_none_is_refused(source: str) -> None:
    """Mistakes in the template are the user's to mend, and said before anything is sent."""
    with pytest.raises(UsageError):
        Prompt(source, COLUMNS)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ text.__class__ }}", "unsafe"),
        ("{{ text.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ text['__class__'] }}", "unsafe"),
        ("{{ ''.join.__globals__ }}{{ text }}", "__globals__"),
        ("{{ text }}{% for i in range(10**9) %}x{% endfor %}", "Range too big"),
        ("{{ tags.append(1) }}", "unsafe"),
        ("{{ text.format.__self__ }}", "__self__"),
        ("{{ text + 1 }}", "str"),
        ("{{ 1 // 0 }}{{ text }}", "division|zero"),
        ("{% include 'secrets' %}{{ text }}", "loader"),
    ],
)
def test_the_sandbox_holds_and_a_row_comes_out_with_the_reason(source: str, reason: str) -> None:
    """What a template may not do costs the row, never the run."""
    (found,) = rendered(source, text=["x"], tags=[[]])
    assert isinstance(found, Unrenderable)
    assert found.reason.startswith("the prompt could not be rendered: ")
    assert any(part in found.reason for part in reason.split("|"))


def test_only_the_rows_that_fail_are_lost() -> None:
    """One bad row among many does not take the others with it."""
    found = rendered("{{ 10 // rating }}", rating=[5, 0, 2, None])
    assert found[0] == "2"
    assert found[2] == "5"
    assert isinstance(found[1], Unrenderable)
    assert isinstance(found[3], Unrenderable)


def test_an_undefined_name_is_an_error_of_the_row() -> None:
    """A field that a value doesn't have is never an empty text."""
    found = rendered("{{ tags.colour }}", tags=[{"colour": "red"}, {}])
    assert found[0] == "red"
    assert isinstance(found[1], Unrenderable)
    assert "colour" in found[1].reason


def test_a_null_reads_as_nothing() -> None:
    """Never as "None", neither alone nor among others."""
    assert rendered("[{{ text }}]", text=[None, "", "x"]) == ["[]", "[]", "[x]"]
    assert rendered("{{ text }}|{{ row['text'] }}", text=[None]) == ["|"]


def test_a_prompt_is_kept_to_the_character() -> None:
    """Nothing is stripped, nothing added: newlines at the end, blanks, emoji, text from right to left."""
    values = [
        "  blank \n\n",
        "👩🏽\u200d💻 🙂",
        "\u202e\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd",
        "<b>&amp;</b>",
        "\ttab\r\nline",
        "e\u0301",
    ]
    assert rendered("\n {{ text }} \n\n", text=values) == [f"\n {value} \n\n" for value in values]


@pytest.mark.parametrize(
    "value",
    [
        "\x00",
        "\x00\x1e",
        "\x00\x1e\x00",
        "\x1e\x00",
        "\x1e\x1f",
        SEPARATOR,
        SEPARATOR[:-1],
        SEPARATOR[1:],
        SEPARATOR * 3,
    ],
)
def test_control_characters_stay_in_their_row(value: str) -> None:
    """A text that looks like what stands between two renderings neither moves nor loses a character."""
    texts = [value, "x", f"x{value}", f"{value}x", value]
    assert rendered("{{ text }}", text=texts) == texts
    assert rendered("<{{ text }}", text=texts) == [f"<{text}" for text in texts]


@pytest.mark.parametrize("name", ["copy", "items", "keys", "values", "get", "update", "pop", "clear"])
def test_a_column_named_like_a_method_is_the_column(name: str) -> None:
    """`row.copy` is what the column `copy` says, not a Python object and its address."""
    assert rendered(f"{{{{ row.{name} }}}}", **{name: ["x", "y"]}) == ["x", "y"]
    assert rendered(f"{{{{ product.{name} }}}}", product=[{name: "x"}]) == ["x"]


@pytest.mark.parametrize(
    "source", ["{{ text.upper }}", "{{ tags | map('upper') }}", "{{ tags | unique }}", "{{ namespace }}{{ text }}"]
)
def test_a_python_object_is_never_part_of_a_prompt(source: str) -> None:
    """Its text would hold an address: another one each time, so another body after a crash."""
    (found,) = rendered(source, text=["x"], tags=[["a"]])
    assert isinstance(found, Unrenderable)
    assert "not text" in found.reason


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ loop }}{{ text }}", ["Lx"]),
        ("{% for c in text %}{{ loop.index }}{% endfor %}{{ loop }}", ["1L"]),
        ("{{ row }}", ["{'row': 'R'}"]),
        ("{{ row.row }}", ["R"]),
        ("{{ __rows }}", ["_"]),
        ("{{ request }}{{ first }}{{ hi }}", ["123"]),
        ("{{ range }}", ["r"]),
    ],
)
def test_a_column_may_have_any_name(source: str, expected: list[str]) -> None:
    """Names that the template language, or we, use for something else are still columns."""
    columns: dict[str, list[Any]] = {
        "loop": ["L"],
        "text": ["x"],
        "__rows": ["_"],
        "request": [1],
        "first": [2],
        "hi": [3],
        "range": ["r"],
    }
    used = {name: value for name, value in columns.items() if name in source}
    assert rendered(source, **(used or {"row": ["R"]})) == expected


def test_a_variable_may_be_called_like_what_only_a_loop_has() -> None:
    """What is right for one row is right for many."""
    assert rendered("{% set loop = 1 %}{{ loop }}{{ text }}", text=["x", "y"]) == ["1x", "1y"]


TEMPLATES = [
    "{{ text }}",
    "{{ text }}\n",
    "{{ rating }} {{ text }}",
    "{{ row['text'] }}{{ rating }}",
    "{{ row.rating }}",
    "{% set text = text ~ '!' %}{{ text }}",
    "{% if rating > 2 %}{% set text = 'high' %}{% endif %}{{ text }}",
    "{% for c in text %}{{ loop.index }}{{ c }}{% if loop.last %}.{% endif %}{% endfor %}{{ rating }}",
    "{% set ns = namespace(n=0) %}{% for c in text %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}{{ rating }}",
    "{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(text) }}{{ m(rating) }}",
    "{% filter upper %}{{ text }}{% endfilter %}{{ rating }}",
    "{% with t = text %}{{ t }}{% endwith %}{{ 6 // rating }}",
    "{% block b %}{{ text }}{% endblock %}{{ rating }}",
    "{% set x %}{{ text }}{{ rating }}{% endset %}{{ x }}{{ x }}",
    "{% raw %}{{ text }}{% endraw %}{{ text }}{{ rating }}",
    "{{ cycler('a', 'b').next() }}{{ text }}{{ rating }}",
    "{% for k, v in row.items() %}{{ k }}={{ v }};{% endfor %}",
]
texts = st.text(st.sampled_from("ab {%}<\n\x00\x1e\x1fä🙂")) | st.none()


@pytest.mark.parametrize("source", TEMPLATES)
@settings(max_examples=20)
@given(st.lists(st.tuples(texts, st.integers(0, 4)), min_size=1, max_size=6))
def test_many_at_once_read_like_one_by_one(source: str, rows: list[tuple[str | None, int]]) -> None:
    """No row sees anything of the one before it."""
    columns: dict[str, list[Any]] = {"text": [text or "" for text, _ in rows], "rating": [rating for _, rating in rows]}
    assert rendered(source, **columns) == one_by_one(source, **columns)


@given(st.lists(texts, max_size=6))
def test_a_template_that_is_a_column_gives_its_values(values: list[str | None]) -> None:
    """There are as many prompts as rows, each its own value, whatever characters they have."""
    assert rendered("{{ text }}", text=values) == [value or "" for value in values]


@pytest.mark.parametrize(
    ("value", "expected"), [(None, True), ("", True), (" \n\t\u3000", True), ("x", False), (0, False), ([], False)]
)
def test_blank_is_null_or_text_without_a_visible_character(value: Any, expected: bool) -> None:
    """Zero and an empty list say something."""
    assert blank(value) is expected
