"""The page of any report: its fields as they are, lists of alike entries as tables. For kinds without one of theirs."""

from collections.abc import Iterator, Mapping, Sequence

from onnxcomp.report.html.common import Found, circumstances, reproduce
from onnxcomp.report.html.page import Cell, Section, bullets, facts, page, table

__all__ = ["plain_page"]

_ELSEWHERE = ("schema_version", "kind", "created", "notes", "versions", "machine", "recipe", "output", "settings")
_MOST_COLUMNS = 12


def plain_page(found: Found, command: str | None) -> str:
    """Return the page.

    Args:
        found: The report, as its JSON has it.
        command: The command line that made it; None: not known.
    """
    own = {name: value for name, value in found.items() if name not in _ELSEWHERE}
    plain = {name: value for name, value in own.items() if _is_plain(value)}
    settings = found.get("settings")
    missed = found.get("missed")
    return page(
        kind=found["kind"],
        title=str(found.get("model") or found.get("reference") or found.get("output") or found["kind"]),
        verdict="",
        passed=None if not missed else False,
        tiles=[],
        sections=[
            Section("Found", (facts((_words(name), _said(value)) for name, value in plain.items()),) if plain else ()),
            *(_section(name, value) for name, value in own.items() if not _is_plain(value)),
            reproduce(found, command),
            circumstances(found, settings if isinstance(settings, Mapping) else {}),
        ],
        created=str(found.get("created", "")),
    )


def _section(name: str, value: object) -> Section:
    return Section(_words(name).capitalize(), tuple(_parts(name, value)))


def _parts(name: str, value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        entries = [one for one in value.values() if isinstance(one, Mapping)]
        if entries and len(entries) == len(value):
            yield _table(name, [{"name": label, **one} for label, one in value.items()])
        else:
            yield facts((_words(str(label)), _said(one)) for label, one in value.items())
    elif isinstance(value, Sequence) and value:
        if all(isinstance(one, Mapping) for one in value):
            yield _table(name, value)
        else:
            yield bullets(map(_said, value))


def _table(name: str, rows: Sequence[Mapping[str, object]]) -> str:
    deep = {name for row in rows for name, value in row.items() if _is_deep(value)}
    columns = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in deep][:_MOST_COLUMNS]
    heads = [_words(column) for column in columns]
    return table(_words(name), heads, [[_cell(row.get(column)) for column in columns] for row in rows])


def _cell(value: object) -> Cell | str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Cell(f"{value:.6g}" if isinstance(value, float) else str(value), float(value))
    return "\N{EN DASH}" if value is None else _said(value)


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)


def _is_deep(value: object) -> bool:
    """Whether a value holds more than a cell can: a report in a report."""
    return isinstance(value, Mapping) and any(isinstance(one, Mapping | list) for one in value.values())


def _said(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(str(name))} {_said(one)}" for name, one in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_said, value))
    return "none" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _words(name: str) -> str:
    return name.replace("_", " ")
