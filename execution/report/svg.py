"""Drawing: a plot with two axes, and marks on it, as SVG text. Colours come from the page's style sheet by class name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape

Point = tuple[float, float]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, at steps of 1, 2, 2.5 or 5 times a power of ten."""
    if not low < high:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def span(values: Iterable[float], *, zero: bool = False, room: float = 0.06) -> tuple[float, float]:
    """The range of some values with room at both ends, never empty; with `zero`, it holds 0."""
    found = [*values, 0.0] if zero else list(values)
    low, high = (min(found), max(found)) if found else (0.0, 1.0)
    if low == high:
        # Without any spread a range of one thousandth keeps the axis readable at every scale of price.
        away = abs(low) / 1000 or 1.0
        return low - away, high + away
    return low - (high - low) * room, high + (high - low) * room


def decimals(step: float) -> int:
    """How many decimals tell two ticks apart."""
    return max(0, min(12, math.ceil(-math.log10(step) - 1e-9))) if step > 0 else 0


def tick_label(marks: Sequence[float], *, signed: bool = False) -> Callable[[float], str]:
    """Formats the numbers of an axis with as many decimals as its ticks need."""
    step = abs(marks[1] - marks[0]) if len(marks) > 1 else 1.0
    places = decimals(step)
    # A step of 2.5 needs one decimal more than its size says.
    if round(step, places) != round(step, places + 2):
        places += 1
    return lambda value: number(value, places, signed=signed)


def number(value: float, places: int = 2, *, signed: bool = False) -> str:
    """A number for people: thousands apart, a true minus sign, and no sign on what rounds to zero."""
    text = f"{abs(value):,.{places}f}"
    if not any(digit in text for digit in "123456789"):
        return text
    return ("−" if value < 0 else "+" if signed else "") + text


class Plot:
    """One chart. Data coordinates in, SVG out; y grows upwards."""

    def __init__(
        self,
        width: int,
        height: int,
        x: tuple[float, float],
        y: tuple[float, float],
        *,
        left: int = 52,
        right: int = 14,
        top: int = 10,
        bottom: int = 26,
        label: str = "",
    ) -> None:
        self.width, self.height = width, height
        self.left, self.right = left, width - right
        self.top, self.bottom = top, height - bottom
        self._x0, self._x1 = x
        self._y0, self._y1 = y
        self._parts: list[str] = []
        self._label = label

    def x(self, value: float) -> float:
        return self.left + (value - self._x0) / (self._x1 - self._x0) * (self.right - self.left)

    def y(self, value: float) -> float:
        return self.bottom - (value - self._y0) / (self._y1 - self._y0) * (self.bottom - self.top)

    def axis_x(self, marks: Sequence[float], label: Callable[[float], str], *, grid: bool = False) -> None:
        """Ticks and their labels below; with `grid`, lines up through the plot."""
        for mark in marks:
            at = self.x(mark)
            if grid:
                self._segment(at, self.top, at, self.bottom, "grid")
            self.text_at(at, self.bottom + 16, label(mark), "tick", "middle")
        self._segment(self.left, self.bottom, self.right, self.bottom, "axis")

    def axis_y(self, marks: Sequence[float], label: Callable[[float], str]) -> None:
        """Lines across the plot and their labels at the left."""
        for mark in marks:
            at = self.y(mark)
            self._segment(self.left, at, self.right, at, "grid")
            self.text_at(self.left - 7, at + 3.5, label(mark), "tick", "end")

    def line(self, points: Sequence[Point], style: str, *, step: bool = False) -> None:
        """A line through points; with `step`, each value holds until the next."""
        if not points:
            return
        path = [f"M{self.x(points[0][0]):.1f} {self.y(points[0][1]):.1f}"]
        for x, y in points[1:]:
            if step:
                path.append(f"H{self.x(x):.1f}")
            path.append(f"V{self.y(y):.1f}" if step else f"L{self.x(x):.1f} {self.y(y):.1f}")
        self._parts.append(f'<path class="{style}" fill="none" d="{"".join(path)}"/>')

    def area(self, upper: Sequence[Point], lower: Sequence[Point], style: str) -> None:
        """The area between two lines over the same stretch."""
        corners = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in [*upper, *reversed(lower)])
        self._parts.append(f'<polygon class="{style}" points="{corners}"/>')

    def across(self, value: float, style: str) -> None:
        """A line across the plot at a value of y."""
        self._segment(self.left, self.y(value), self.right, self.y(value), style)

    def upright(self, value: float, style: str) -> None:
        """A line up the plot at a value of x."""
        self._segment(self.x(value), self.top, self.x(value), self.bottom, style)

    def segment(self, start: Point, end: Point, style: str) -> None:
        self._segment(self.x(start[0]), self.y(start[1]), self.x(end[0]), self.y(end[1]), style)

    def dot(self, point: Point, radius: float, style: str, title: str = "") -> None:
        """A point; its title shows when it is pointed at."""
        place = f'cx="{self.x(point[0]):.1f}" cy="{self.y(point[1]):.1f}" r="{radius:.1f}"'
        self._parts.append(
            f'<circle class="{style}" {place}><title>{escape(title)}</title></circle>'
            if title
            else f'<circle class="{style}" {place}/>'
        )

    def box(self, x: tuple[float, float], y: tuple[float, float], style: str, title: str = "") -> None:
        """A rectangle between two values of each axis; a flat one is still drawn one pixel high."""
        left, right = sorted((self.x(x[0]), self.x(x[1])))
        top, bottom = sorted((self.y(y[0]), self.y(y[1])))
        size = f'width="{max(right - left, 1):.1f}" height="{max(bottom - top, 1):.1f}"'
        inside = f"<title>{escape(title)}</title>" if title else ""
        self._parts.append(f'<rect class="{style}" x="{left:.1f}" y="{top:.1f}" {size} rx="1.5">{inside}</rect>')

    def text_at(self, left: float, top: float, text: str, style: str, anchor: str = "start", title: str = "") -> None:
        """Text at a place in pixels."""
        inside = f"<title>{escape(title)}</title>" if title else ""
        place = f'x="{left:.1f}" y="{top:.1f}" text-anchor="{anchor}"'
        self._parts.append(f'<text class="{style}" {place}>{escape(text)}{inside}</text>')

    def svg(self) -> str:
        head = f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(self._label)}">'
        return head + "".join(self._parts) + "</svg>"

    def _segment(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        self._parts.append(f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')


def apart(places: Sequence[float], least: float, low: float, high: float) -> list[float]:
    """Places moved so that no two are closer than `least`, in their order and between `low` and `high` where they fit."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = list(places)
    at = low - least
    for index in order:
        at = max(moved[index], at + least)
        moved[index] = at
    ceiling = high
    for index in reversed(order):
        moved[index] = min(moved[index], ceiling)
        ceiling = moved[index] - least
    return moved
