"""The committed reference is what the tool writes from the commands."""

from pathlib import Path

import cli_reference

from onnxcomp import registry
from onnxcomp.cli.app import build_app
from onnxcomp.cli.signature import commands
from onnxcomp.target import TARGETS

ROOT = Path(__file__).parents[2]


def test_the_reference_is_up_to_date() -> None:
    """If this fails: python tools/cli_reference.py."""
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == cli_reference.reference()


def test_the_page_of_passes_is_up_to_date() -> None:
    """If this fails: python tools/cli_reference.py."""
    text = (ROOT / "docs" / "passes.md").read_text(encoding="utf-8")
    assert text == cli_reference.passes()
    assert [name for name in registry.BUILT_IN if f"## {name}\n" not in text] == []


def test_the_table_of_passes_is_up_to_date() -> None:
    """If this fails: python tools/cli_reference.py."""
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert text == cli_reference.with_passes(text)
    assert [name for name in registry.BUILT_IN if f"| `{name}` |" not in text] == []


def test_the_tables_of_targets_are_up_to_date() -> None:
    """If this fails: python tools/cli_reference.py."""
    text = (ROOT / "docs" / "targets.md").read_text(encoding="utf-8")
    assert text == cli_reference.with_targets(text)
    assert [name for name in TARGETS if f"| `{name}` |" not in text] == []


def test_it_holds_every_command_and_option() -> None:
    text = cli_reference.reference()
    for command in commands(build_app()):
        assert f"## onnxcomp {command.name}\n" in text
        for parameter in command.parameters:
            assert all(f"`{flag}`" in text for flag in parameter.flags)
            assert parameter.help.partition("  [default")[0].replace("|", "\\|") in text
