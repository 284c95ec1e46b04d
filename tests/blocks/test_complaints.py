"""Reasons that services give, in whatever shape: none of them is lost, and none breaks the reading."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.errors import Transient
from blocks.providers.complaints import Said, said_of
from blocks.providers.holysheep.codec import read_error as read_holysheep
from blocks.providers.openai.codec import read_error as read_openai
from blocks.transport import Transport
from tests.blocks.scripted import Say, serving


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        ({"detail": "no such model"}, "", "no such model"),
        ({"error": "no such model"}, "", "no such model"),
        ({"error": {"message": "why", "type": "bad", "code": "worse"}}, "worse", "why"),
        ({"error": {"error": {"message": "why", "code": 1500}}}, "1500", "why"),
        ({"error": {"message": '{"error": {"message": "why", "code": "x"}}', "code": 400}}, "x", "why"),
        ({"detail": [{"loc": ["body", "model"], "msg": "Field required", "type": "missing"}]}, "missing",
         "body.model: Field required"),
        ({"errors": [{"message": "a"}, {"message": "b"}]}, "", "a (and 1 more)"),
        ({"error": {"code": {"a": 1}, "message": "why"}}, "", "why"),
        ({"error": {"code": True, "message": ["why"]}}, "", "why"),
        ("why", "", "why"),
        (None, "", ""),
    ],
)  # fmt: skip
def test_a_reason_is_found_wherever_it_stands(error: Any, code: str, message: str) -> None:
    """With the code that says most."""
    found = said_of(error)
    assert (found.code, found.message) == (code, message)


HEADERS = {"authorization": "Bearer k"}
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "detail", "message", "code", "type", "loc", "msg"]), inner)
    ),
    max_leaves=12,
)


@given(values)
def test_no_error_is_too_strange(error: Any) -> None:
    """Whatever JSON it is, code and reason are texts."""
    assert all(isinstance(part, str) for part in said_of(error))
    assert isinstance(said_of(error), Said)


def refused(transport: Transport) -> Transient:
    """The error of a call."""
    with pytest.raises(Transient) as caught:
        transport.get("/x")
    return caught.value


@pytest.mark.parametrize("read", [read_holysheep, read_openai])
@pytest.mark.parametrize("code", [7, 1.5, None, True, {"a": 1}, ["x"]])
def test_a_code_of_any_type_leaves_the_status_in_force(read: Any, code: Any) -> None:
    """A call that was throttled is a transient error, whatever its body says."""
    said = Say(429, {"error": {"code": code, "message": "slow down"}}, {"x-should-retry": "false"})
    with serving(said) as server, closing(Transport("someone", server.url, HEADERS, read)) as transport:
        found = refused(transport)
    assert (found.status, "slow down" in found.message) == (429, True)
