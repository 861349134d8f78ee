"""Subscription filters: by attributes only, as Pub/Sub defines them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

Predicate = Callable[[Mapping[str, str]], bool]

_TOKEN = re.compile(
    r"\s*(?:(?P<word>AND|OR|NOT|hasPrefix)\b|(?P<attribute>attributes)\b|(?P<mark>!=|[()=:.,-])"
    r'|(?P<text>"(?:[^"\\]|\\.)*")|(?P<name>[A-Za-z_][A-Za-z0-9_-]*))'
)
LONGEST = 256


class FilterError(ValueError):
    """A filter that cannot be read."""


def parse(text: str) -> Predicate:
    """A filter as a function of a message's attributes; an empty one lets everything through.

    Raises:
        FilterError: it is not a filter.
    """
    if not text:
        return lambda _: True
    if len(text) > LONGEST:
        raise FilterError(f"longer than {LONGEST} characters")
    parser = _Parser(text)
    predicate = parser.either()
    parser.end()
    return predicate


class _Parser:
    """Recursive descent over `term (AND term)* (OR ...)`."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        at = 0
        while at < len(text.rstrip()):
            match = _TOKEN.match(text, at)
            if match is None or match.end() == at:
                raise FilterError(f"unexpected text at position {at}")
            assert match.lastgroup is not None
            self._tokens.append((match.lastgroup, match.group(match.lastgroup)))
            at = match.end()
        self._at = 0

    def either(self) -> Predicate:
        terms = [self._both()]
        while self._skip("OR"):
            terms.append(self._both())
        return terms[0] if len(terms) == 1 else lambda attributes: any(term(attributes) for term in terms)

    def end(self) -> None:
        if self._at != len(self._tokens):
            raise FilterError(f"unexpected {self._tokens[self._at][1]!r}")

    def _both(self) -> Predicate:
        terms = [self._term()]
        while self._skip("AND"):
            terms.append(self._term())
        return terms[0] if len(terms) == 1 else lambda attributes: all(term(attributes) for term in terms)

    def _term(self) -> Predicate:
        if self._skip("NOT") or self._skip("-"):
            inner = self._term()
            return lambda attributes: not inner(attributes)
        if self._skip("("):
            inner = self.either()
            self._expect(")")
            return inner
        if self._skip("hasPrefix"):
            self._expect("(")
            name = self._attribute()
            self._expect(",")
            prefix = self._text()
            self._expect(")")
            return lambda attributes: attributes.get(name, "").startswith(prefix) and name in attributes
        return self._comparison()

    def _comparison(self) -> Predicate:
        kind, _ = self._next()
        if kind != "attribute":
            raise FilterError("only attributes can be filtered by")
        if self._skip(":"):
            name = self._name()
            return lambda attributes: name in attributes
        self._expect(".")
        name = self._name()
        if self._skip("="):
            value = self._text()
            return lambda attributes: attributes.get(name) == value
        self._expect("!=")
        value = self._text()
        return lambda attributes: name in attributes and attributes[name] != value

    def _attribute(self) -> str:
        if self._next()[0] != "attribute":
            raise FilterError("hasPrefix takes an attribute")
        self._expect(".")
        return self._name()

    def _name(self) -> str:
        kind, value = self._next()
        if kind == "text":
            return _unquoted(value)
        if kind not in ("name", "word", "attribute"):
            raise FilterError(f"{value!r} is not an attribute's name")
        return value

    def _text(self) -> str:
        kind, value = self._next()
        if kind != "text":
            raise FilterError(f"{value!r} is not a quoted text")
        return _unquoted(value)

    def _next(self) -> tuple[str, str]:
        if self._at >= len(self._tokens):
            raise FilterError("unexpected end")
        self._at += 1
        return self._tokens[self._at - 1]

    def _skip(self, word: str) -> bool:
        here = self._tokens[self._at] if self._at < len(self._tokens) else ("", "")
        if here[1] == word and here[0] in ("word", "mark"):
            self._at += 1
            return True
        return False

    def _expect(self, mark: str) -> None:
        if not self._skip(mark):
            raise FilterError(f"{mark!r} expected")


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])
