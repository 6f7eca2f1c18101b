"""Markup: the few pieces of HTML that all displays are made of.

Inline styles only, colours from the front end's theme with fallbacks that can be read on white and
on black, no script: it looks the same in JupyterLab, Notebook, VS Code and in what nbconvert makes.
"""

from __future__ import annotations

from collections.abc import Iterable

_ESCAPED = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"})
# As html.escape, which comes with a table of 2,000 named characters that a start would wait for.
MUTED = "var(--jp-content-font-color2,rgba(128,128,128,1))"
LINE = "var(--jp-border-color2,rgba(128,128,128,.35))"
SHADE = "var(--jp-cell-editor-background,rgba(128,128,128,.1))"
CODE = "var(--jp-code-font-family,ui-monospace,Menlo,Consolas,monospace)"
SIZE = "var(--jp-ui-font-size1,13px)"
# Front ends shade code in running text; in a card or a table it is plain.
CODE_STYLE = f"font-family:{CODE};font-size:inherit;background:none;padding:0;color:inherit"
GOOD = "var(--jp-success-color1,#388e3c)"
BAD = "var(--jp-error-color1,#d32f2f)"
BUSY = "var(--jp-brand-color1,#1976d2)"
WARN = "var(--jp-warn-color1,#e68a00)"

Bundle = dict[str, object]
"""A MIME bundle: what a display shows, by media type."""


def text(value: object) -> str:
    """``value`` so that it is text and nothing else, in an element or in an attribute."""
    return str(value).translate(_ESCAPED)


def code(value: object, *, tip: object = None) -> str:
    """A word in the code font; ``tip`` is shown on hover."""
    title = f' title="{text(tip)}"' if tip is not None else ""
    return f'<code style="{CODE_STYLE}"{title}>{text(value)}</code>'


def pre(inner: str) -> str:
    """Lines of HTML in the code font, in a box that scrolls when there are many."""
    return (
        f'<pre style="font-family:{CODE};font-size:.92em;line-height:1.45;margin:.3em 0 .15em;'
        f"padding:.5em .75em;background:{SHADE};color:inherit;max-height:24em;overflow:auto;"
        f'white-space:pre-wrap;overflow-wrap:anywhere">{inner}</pre>'
    )


def muted(inner: str) -> str:
    """HTML in a quieter colour."""
    return f'<span style="color:{MUTED}">{inner}</span>'


def table(
    columns: Iterable[tuple[str, str]], rows: Iterable[Iterable[str]], *, caption: str = ""
) -> str:
    """A table. Columns are (title, alignment); cells are HTML already."""
    columns = list(columns)
    head = "".join(
        f'<th style="text-align:{side};padding:.25em .8em">{text(title)}</th>'
        for title, side in columns
    )
    if any(title for title, _ in columns):
        head = f'<thead><tr style="border-bottom:1px solid {LINE}">{head}</tr></thead>'
    else:
        head = ""
    cell = "padding:.2em .8em;vertical-align:baseline;text-align:"
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="{cell}{side}">{inner}</td>'
            for (_, side), inner in zip(columns, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    above = f'<div style="padding:.4em 0 .3em">{caption}</div>' if caption else ""
    return (
        f'<div style="overflow-x:auto;font-size:{SIZE}">{above}'
        f'<table style="border-collapse:collapse;margin:0;font-size:inherit">{head}'
        f"<tbody>{body}</tbody></table></div>"
    )


def columns(rows: Iterable[Iterable[str]], sides: str) -> str:
    """Rows of text in columns; ``sides`` has ``<`` or ``>`` for each."""
    cells = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join(f"{c:{side}{w}}" for c, side, w in zip(row, sides, widths, strict=True))
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)
