"""Text of HTML and SVG that can't be anything else than it says: what is not `Markup` is escaped, always."""

import html
from collections.abc import Iterable

__all__ = ["Markup", "join", "tag"]

_VOID = frozenset({"br", "col", "hr", "input", "link", "meta"})
_RAW = frozenset({"script", "style"})  # their content is ours alone, and not escaped


class Markup(str):
    """HTML or SVG that is finished, and is not escaped again."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: object) -> Markup:
    """Return an element.

    Args:
        name: Of the element.
        children: What is inside; all but `Markup` is escaped.
        attributes: By name, with ``_`` for ``-`` and one behind names that Python keeps for itself (``class_``). None
            and False are left out, True has no value.
    """
    inside = "".join(children) if name in _RAW else "".join(map(_escaped, children))
    opening = f"<{name}{''.join(_attribute(*one) for one in attributes.items())}>"
    return Markup(opening if name in _VOID else f"{opening}{inside}</{name}>")


def join(parts: Iterable[str]) -> Markup:
    """Return parts one after another; all but `Markup` is escaped."""
    return Markup("".join(map(_escaped, parts)))


def _escaped(text: str) -> str:
    return text if isinstance(text, Markup) else html.escape(_visible(text))


def _attribute(name: str, value: object) -> str:
    if value is None or value is False:
        return ""
    plain = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {plain}"
    text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return f' {plain}="{html.escape(_visible(text))}"'


def _visible(text: str) -> str:
    """Write what no document may hold, control characters and halves of pairs, as an escape."""
    return "".join(
        c if c.isprintable() or c in "\n\t " or not _forbidden(c) else c.encode("unicode_escape").decode("ascii")
        for c in text
    )


def _forbidden(character: str) -> bool:
    code = ord(character)
    return code < 32 or 127 <= code < 160 or 0xD800 <= code < 0xE000 or code & 0xFFFE == 0xFFFE
