"""Plain HTML that needs no script."""

import html


def html_table(header, rows):
    """A plain table as str: `header` an iterable of str, `rows` an iterable of iterables; all is escaped.
    JupyterLab would align cells to the right, where bars and tokens are hard to compare."""

    def row(cells, tag):
        tds = (f'<{tag} style="text-align:left">{html.escape(str(cell))}</{tag}>' for cell in cells)
        return f"<tr>{''.join(tds)}</tr>"

    return "<table>" + row(header, "th") + "".join(row(cells, "td") for cells in rows) + "</table>"
