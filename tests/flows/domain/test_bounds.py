"""Templates end, and fill no memory, whoever wrote them; what prompts need is not in the way of that."""

from __future__ import annotations

import threading
import tracemalloc

import pytest

from flows.domain.bounds import LONGEST_TEXT, MOST_STEPS
from flows.domain.prompts import Prompt, Unrenderable

LAUGHS = "{% set b = [a] * 9 %}" + "{% set b = [b, b, b, b, b, b, b, b, b, b] %}" * 12
GROWING = "{{% set n = namespace(s={start}) %}}{{% for i in range(99) %}}{{% set n.s = {step} %}}{{% endfor %}}"
BOMBS = [
    "{{ 'x' * 10**10 }}",
    "{{ 10**10 * 'x' }}",
    "{{ ['x'] * 10**9 }}",
    "{{ (9**999)**999 }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% for i in [1] recursive %}{{ loop([1]) }}{{ loop([1]) }}{% endfor %}",
    GROWING.format(start="'x'", step="n.s ~ n.s"),
    GROWING.format(start="'x'", step="n.s + n.s"),
    GROWING.format(start="[1]", step="n.s + n.s"),
    GROWING.format(start="10", step="n.s * n.s"),
    "{% set s = 'x' * 9000000 %}" + "{{ s }}" * 1000,
    "{% set s %}{% for i in range(99999) %}" + "x" * 999 + "{% endfor %}{% endset %}",
    "{{ '%9999999999d' % 1 }}",
    "{{ '%*d' % (10**10, 1) }}",
    "{{ '%9999999999d'|format(1) }}",
    "{{ '{:>9999999999}'.format(1) }}",
    "{{ '{:{w}}'.format(1, w=10**10) }}",
    "{{ 'x'.center(10**10) }}",
    "{{ 'x'|center(10**10) }}",
    "{{ ['x']|map('center', 10**10)|list }}",
    "{{ 'x'|indent(10**10, true) }}",
    "{{ '\t'.expandtabs(10**10) }}",
    "{{ 5 .to_bytes(10**10) }}",
    "{{ ('x' * 10**6).replace('x', 'y' * 10**6) }}",
    "{{ ('x' * 10**6)|replace('x', 'y' * 10**6) }}",
    "{{ ','.join(['x' * 10**6] * 10**5) }}",
    "{{ (['x' * 10**6] * 10**5)|join }}",
    "{{ 1.5|round(10**10) }}",
    "{{ [1]|batch(10**9, 'x')|list }}",
    "{{ [1]|slice(10**9)|list }}",
    "{{ [1, 2]|tojson(indent=10**9) }}",
    "{{ 'a b'|wordwrap(1, wrapstring='x' * 10**7) }}",
    *(LAUGHS + end for end in ("{{ b }}", "{{ b|string }}", "{{ b|tojson }}", "{{ b|upper }}", "{{ '%s' % b }}")),
]
USEFUL = [
    ("{% for each in a.split(',') %}{{ loop.index }}. {{ each|trim|upper }};{% endfor %}", "1. X;2. Y;"),
    ("{% for i in range(3) %}{% for j in range(2) %}{{ i * j + 1 }}{% endfor %}{% endfor %}", "111213"),
    ("{{ '-'.join(a.split(',')) }} {{ '-'.join(('p', 'q')) }} {{ '-'.join({'r': 1, 's': 2}) }}", "x-y p-q r-s"),
    ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(a) ~ m(1) }}", "<x,y><1>"),
    ("{{ '%.2f' % 1.5 }} {{ '%5.1f'|format(2) }} {{ '{:>4}'.format('z') }}", "1.50   2.0    z"),
    ("{{ a.split(',')|join(' and ') }} {{ a|replace(',', ';') }} {{ a.replace(',', '!') }}", "x and y x;y x!y"),
    (
        "{{ ('one\ntwo')|indent(4) }} {{ 'ab'|center(6) }} {{ 'ab'.rjust(4) }} {{ '-' * 5 }}",
        "one\n    two   ab     ab -----",
    ),
    ("{{ a|tojson }} {{ [1, 2]|sum }} {{ a|batch(2)|list|length }} {{ 2 ** 10 }} {{ a|length }}", '"x,y" 3 2 1024 3'),
]


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_template_that_would_not_end_or_fit_is_a_reason(bomb: str) -> None:
    """The row says why; the next row is asked in vain too, but at once."""
    first, second = Prompt("{{ a }}" + bomb, ["a"]).render([["one", "two"]])
    assert isinstance(first, Unrenderable)
    assert isinstance(second, Unrenderable)
    assert first.reason.startswith("the prompt could not be rendered: ")


@pytest.mark.parametrize(("template", "expected"), USEFUL)
def test_what_prompts_need_is_rendered(template: str, expected: str) -> None:
    """Alone, and many at once."""
    prompt = Prompt(template + "{{ a[:0] }}", ["a"])
    assert prompt.render([["x,y"]]) == [expected]
    assert prompt.render([["x,y"] * 50]) == [expected] * 50


def test_steps_are_counted_by_row() -> None:
    """Many rows of many steps are not one row of too many."""
    prompt = Prompt("{{ a }}{% for i in range(" + str(MOST_STEPS // 2) + ") %}{% endfor %}", ["a"])
    assert prompt.render([["one", "two", "three", "four"]]) == ["one", "two", "three", "four"]


def test_steps_are_counted_by_thread() -> None:
    """Batches are encoded side by side."""
    prompt = Prompt("{{ a }}{% for i in range(20000) %}{% endfor %}", ["a"])
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.extend(prompt.render([["x"] * 4]))) for _ in range(4)
    ]  # together more than one row may take
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["x"] * 16


@pytest.mark.parametrize("name", ["step", "begin", "__step", "environment"])
def test_a_template_can_not_stop_the_counting(name: str) -> None:
    """Whatever it calls its own variables."""
    loops = "{% for i in range(99999) %}{% for j in range(99) %}{% endfor %}{% endfor %}"
    (found,) = Prompt("{{ a }}{% set " + name + " = namespace %}" + loops, ["a"]).render([["x"]])
    assert isinstance(found, Unrenderable)


def test_a_text_of_many_megabytes_is_a_reason() -> None:
    """No model takes it, and every copy of it would count."""
    long, short = Prompt("{{ a }}", ["a"]).render([["x" * 11_000_000, "y"]])
    assert isinstance(long, Unrenderable)
    assert "10,000,000 characters" in long.reason
    assert short == "y"


@pytest.mark.parametrize(("share", "is_rendered"), [(0.9, True), (1.1, False)])
def test_a_list_is_joined_up_to_the_longest_text(share: float, *, is_rendered: bool) -> None:
    """Its separators count as well as its items; what is too long is not made first."""
    separator = "-" * int(share * LONGEST_TEXT / 1_000)
    prompt = Prompt("{{ (['x'] * 1000)|join(a) }}", ["a"])
    tracemalloc.start()
    try:
        (rendered,) = prompt.render([[separator]])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (rendered == separator.join("x" * 1_000)) is is_rendered
    assert (peak < LONGEST_TEXT / 2) is not is_rendered


@pytest.mark.parametrize(
    "growing",
    [
        "{{ ('x' * 4000)|replace('x', 'y' * 4000) }}",
        "{{ ('x' * 4000).replace('x', 'y' * 4000) }}",
        "{{ ('\n' * 20000)|indent(999, true, true) }}",
        "{{ ('%(a)9999d' * 2000) % {'a': 1} }}",
        "{{ ('{a:9999}' * 2000).format(a=1) }}",
        "{{ ('x ' * 4000)|wordwrap(1, wrapstring='y' * 4000) }}",
        "{{ ('y' * 4000).join(['x'] * 4000) }}",
    ],
)
def test_what_grows_out_of_many_places_is_refused_before_it_is_made(growing: str) -> None:
    """None of its parts is long: what it takes shows that they were counted."""
    prompt = Prompt("{{ a }}" + growing, ["a"])
    tracemalloc.start()
    try:
        (rendered,) = prompt.render([["x"]])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(rendered, Unrenderable)
    assert peak < LONGEST_TEXT / 2
