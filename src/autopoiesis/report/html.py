"""HTML that cannot be broken by what it says: every text is escaped unless it is `Markup` already."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape


class Markup(str):
    """Text that is HTML."""

    __slots__ = ()


EMPTY = frozenset({"br", "hr", "meta", "col"})
UNSEEN = re.compile(
    r"[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\u200b-\u200f\u2028-\u202e\u2066-\u2069]"
)
"""Characters that HTML cannot hold, or that make a text read otherwise than it is."""


def text(value: str) -> Markup:
    """The text as HTML; characters that nobody can see become replacement characters."""
    return value if isinstance(value, Markup) else Markup(escape(UNSEEN.sub("\ufffd", value)))


def joined(parts: Iterable[str], between: str = "") -> Markup:
    """Several texts, one after the other."""
    return Markup(text(between).join(text(part) for part in parts))


def tag(name: str, /, *content: str, **attributes: str | bool) -> Markup:
    """An element. `class_` and `for_` are the attributes without underscore; others have dashes for underscores."""
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(UNSEEN.sub("", value))}"')
        for key, value in attributes.items()
        if value is not False
    )
    if name in EMPTY:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{joined(content)}</{name}>")


def table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    words: int = 1,
    classes: Sequence[str] = (),
) -> Markup:
    """A table that scrolls sideways by itself where the page is narrow.

    The first `words` columns are text, the others numbers; the first names the row. `classes` are those of the rows.
    """

    def cell(name: str, position: int, value: str, **more: str) -> Markup:
        return tag(name, value, class_="w" if position < words else "n", **more)

    body = []
    for index, row in enumerate(rows):
        cells = [
            cell("th", position, value, scope="row") if position == 0 else cell("td", position, value)
            for position, value in enumerate(row)
        ]
        body.append(tag("tr", *cells, class_=classes[index] if index < len(classes) else False))
    return tag(
        "div",
        tag(
            "table",
            tag("caption", tag("span", caption)),
            tag("thead", tag("tr", *(cell("th", position, name, scope="col") for position, name in enumerate(head)))),
            tag("tbody", *body),
        ),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def details(title: str, *content: str) -> Markup:
    """What is shown only to who asks for it."""
    return tag("details", tag("summary", title), *content)
