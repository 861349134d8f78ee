"""Subscription filters, against attributes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execution.embedded.pubsub.filters import FilterError, parse

VENUE = {"venue": "kraken", "type": "order.filled", "AND": "word"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ('attributes.venue = "kraken"', True),
        ('attributes.venue="okx"', False),
        ('attributes.venue != "okx"', True),
        ('attributes.missing != "x"', False),
        ("attributes:venue", True),
        ("attributes:missing", False),
        ("NOT attributes:missing", True),
        ("-attributes:venue", False),
        ('hasPrefix(attributes.type, "order.")', True),
        ('hasPrefix(attributes.missing, "")', False),
        ('attributes.venue = "okx" OR attributes:type AND attributes:venue', True),
        ('(attributes.venue = "okx" OR attributes:type) AND attributes:missing', False),
        ('NOT (attributes:missing OR attributes.venue = "okx")', True),
        ('attributes."venue" = "kraken"', True),
        ('attributes.venue = "a\\"b"', False),
    ],
)
def test_filters(text: str, matches: bool) -> None:
    assert parse(text)(VENUE) is matches


@pytest.mark.parametrize(
    "text",
    [
        "data = 1",
        "attributes",
        "attributes.x",
        "attributes.x = y",
        "(attributes:x",
        "attributes:x attributes:y",
        "AND",
        "x" * 300,
        "attributes.x ~ 1",
    ],
)
def test_what_is_no_filter_is_refused(text: str) -> None:
    with pytest.raises(FilterError):
        parse(text)


@given(
    st.dictionaries(st.sampled_from("abc"), st.sampled_from(["", "1", "12"])),
    st.sampled_from("abc"),
    st.sampled_from(["", "1", "12"]),
)
def test_the_forms_agree_with_each_other(attributes: dict[str, str], name: str, value: str) -> None:
    equal, unequal = parse(f'attributes.{name} = "{value}"'), parse(f'attributes.{name} != "{value}"')
    has, prefix = parse(f"attributes:{name}"), parse(f'hasPrefix(attributes.{name}, "{value}")')
    assert equal(attributes) == (attributes.get(name) == value)
    assert has(attributes) == (equal(attributes) or unequal(attributes))
    assert prefix(attributes) == (name in attributes and attributes[name].startswith(value))
    assert parse(f"NOT attributes:{name}")(attributes) == (not has(attributes))
