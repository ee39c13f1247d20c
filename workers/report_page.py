"""The HTML of a report: a few kinds of blocks, put together into one file.

One rule: everything that is text passes through `escape` here, and only pictures made here stand
in the page as data; nothing is fetched and nothing runs, so the file can be mailed, printed and
opened in ten years.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 72rem;
  margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; border-bottom: 1px solid #ccc; }
p { margin: .4rem 0; max-width: 48rem; overflow-wrap: anywhere; }
.lead { font-size: 1.15rem; }
.alarms { border-left: 5px solid #d1495b; background: #fdf1f3; padding: .4rem .8rem; }
.fine { border-left: 5px solid #3f7d4e; background: #f1f8f3; padding: .4rem .8rem; }
.alarms ul { margin: .2rem 0; padding-left: 1.1rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .15rem .9rem .15rem 0; border-bottom: 1px solid #e6e6e6;
  vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; }
td:first-child { white-space: nowrap; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); gap: 1rem; }
figure { margin: 0; break-inside: avoid; }
figure img { width: 100%; height: auto; display: block; }
figcaption { font-size: .88rem; color: #444; overflow-wrap: anywhere; }
pre { background: #f5f5f5; padding: .6rem; overflow-x: auto; font-size: .85rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
footer { margin-top: 2rem; font-size: .85rem; color: #555; }
@media print { body { max-width: none; padding: 0; font-size: 11px; }
  h2 { break-after: avoid; } tr { break-inside: avoid; }
  .grid { grid-template-columns: repeat(2, 1fr); } pre { border: 1px solid #ccc; } }
"""


def page(title: str, blocks: Iterable[str]) -> str:
    """Return the whole file; `blocks` are what the functions below return."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n" + "\n".join(blocks) + "\n</body>\n</html>\n"
    )


def heading(text: str) -> str:
    """Return the title of a section."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph; `kind` is a class of the style."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def alarms(sentences: Sequence[str]) -> str:
    """Return what somebody should look at, or that there is nothing."""
    if not sentences:
        return '<p class="fine">No alarms.</p>'
    items = "".join(f"<li>{escape(s)}</li>" for s in sentences)
    return f'<div class="alarms"><strong>Look at this</strong><ul>{items}</ul></div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], n_text: int = 1) -> str:
    """Return a table; its first `n_text` columns are words, the others numbers."""

    def line(cells: Sequence[str], tag: str) -> str:
        texts = (
            f"<{tag}>{escape(c)}</{tag}>"
            if k < n_text
            else f'<{tag} class="n">{escape(c)}</{tag}>'
            for k, c in enumerate(cells)
        )
        return f"<tr>{''.join(texts)}</tr>"

    above = f"<thead>{line(head, 'th')}</thead>" if head else ""
    body = "\n".join(line(row, "td") for row in rows)
    return f'<div class="wide"><table>{above}<tbody>\n{body}\n</tbody></table></div>'


def figure(data: bytes | str, caption: str) -> str:
    """Return a picture, PNG bytes or SVG text, with its caption."""
    kind, raw = ("png", data) if isinstance(data, bytes) else ("svg+xml", data.encode())
    source = f"data:image/{kind};base64,{b64encode(raw).decode()}"
    words = escape(caption)
    return f'<figure><img src="{source}" alt="{words}"><figcaption>{words}</figcaption></figure>'


def grid(figures: Sequence[str]) -> str:
    """Return pictures side by side where there is room."""
    return f'<div class="grid">{"".join(figures)}</div>' if figures else ""


def listing(lines: Iterable[str]) -> str:
    """Return lines to copy: commands, settings."""
    return f"<pre>{escape(chr(10).join(lines))}</pre>"
