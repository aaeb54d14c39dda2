"""A comparison as a data frame, CSV, JSON, Markdown, HTML table, and on the terminal."""

import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from flowerexp.comparison import wording
from flowerexp.comparison.comparison import Comparison
from flowerexp.comparison.pairs import Interval
from flowerexp.errors import encodable, one_line
from flowerexp.runs.reader import SECONDS, Run

GAP = 2
"""The cells between two columns on the terminal."""
HIDDEN = ("last epoch", "last loss", "best loss")
"""Numbers without a column of text: losses of different kinds do not compare."""


@dataclass(frozen=True)
class Column:
    """One column of the table of rows, as text."""

    group: str
    """keys | best | last | test | seconds: columns that stay together if there is room."""
    header: str
    cells: Sequence[str]
    values: Sequence[float] = ()
    """The numbers behind the cells, NaN if undefined; empty for keys."""


def statistics(table: pd.DataFrame) -> list[str]:
    """The names of the numbers in a `Comparison.table`."""
    return [name for name in map(str, table) if f"{name} std" in table]


def columns(comparison: Comparison, table: pd.DataFrame) -> list[Column]:
    """The columns of a comparison and its data frame as text, without the names of the rows."""
    found = []
    if (table["n"] > 1).any():
        found.append(Column("keys", "n", [str(count) for count in table["n"]]))
    if (table["state"] != "done").any():
        found.append(Column("keys", "state", table["state"].tolist()))
    for key, title in wording.key_titles(wording.shown_keys(comparison.rows)).items():
        found.append(Column("keys", title, wording.shortened(
            [wording.value_text(row.differing[key]) for row in comparison.rows])))
    for group, digits in (("last", 3), ("best", 3), ("test", 3), ("seconds", 1)):
        for name in statistics(table):
            if name not in HIDDEN and group == (
                    "seconds" if name in SECONDS else name.partition(" ")[0]):
                cells = [wording.score(*pair, 0 if name == "best epoch" else digits) for pair in
                         zip(table[name], table[f"{name} std"], strict=True)]
                found.append(Column(group, name.replace(" seconds", ", s"), cells,
                                    table[name].tolist()))
    return found


def marked(table: pd.DataFrame, mark: str) -> list[str]:
    """The names of the rows, each as one line; the best row's as in `mark`."""
    return [mark.format(one_line(name)) if best else one_line(name)
            for name, best in zip(table["name"], table["best"], strict=True)]


def legend(table: pd.DataFrame, best: str) -> list[str]:
    """Explanations of a marked row, introduced by `best`, and of columns."""
    return [*([best + wording.BEST] if table["best"].any() else []), wording.THIRDS,
            *([wording.SPREAD] if (table["n"] > 1).any() else [])]


def to_csv(comparison: Comparison) -> str:
    """`Comparison.table` as CSV; undefined values are empty."""
    return encodable(comparison.table.to_csv(index=False, lineterminator="\n"))


def to_json(comparison: Comparison) -> str:
    """Rows, pairs, failures and notes as strict JSON; undefined values are null."""
    table = comparison.table
    rows = [{"name": row.name, "best": of["best"], "state": of["state"], "n": of["n"],
             "runs": [{"folder": str(run.folder), "seed": run.seed, "state": run.state,
                       "epochs done": len(run.history)} for run in row.runs],
             "differing": row.differing,
             "numbers": {name: {"mean": of[name], "std": of[f"{name} std"]}
                         for name in statistics(table)}}
            for row, of in zip(comparison.rows, table.to_dict("records"), strict=True)]
    pairs = [{"name": pair.name, "baseline": pair.baseline, "epoch": pair.epoch,
              "chosen on the same data": pair.epoch == "best", "seeds": pair.seeds,
              "differences": {name: vars(found) | {"clear": found.clear}
                              for name, found in pair.differences.items()},
              "agreement": pair.agreement, "mcnemar p": pair.p_value, "gained": pair.gained,
              "lost": pair.lost, "time ratio": pair.time_ratio, "caution": pair.caution}
             for pair in comparison.pairs]
    failures = [{"folder": str(run.folder), "name": run.name, "seed": run.seed,
                 "state": run.state, "error": run.error, "epochs done": len(run.history),
                 "epochs": run.epochs, "rerun": wording.rerun(run)} for run in comparison.failures]
    found = jsonable({"rows": rows, "pairs": pairs, "failures": failures,
                      "notes": comparison.notes})
    return encodable(json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def jsonable(value: Any) -> Any:
    """The value as strict JSON allows it: undefined as None, other YAML types as text."""
    if isinstance(value, dict):
        return {str(key): jsonable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def to_html(comparison: Comparison) -> str:
    """The table of rows as HTML, for a notebook."""
    table = comparison.table
    text = pd.DataFrame({"run": marked(table, "{} (best)")} | {
        column.header: column.cells for column in columns(comparison, table)})
    with pd.option_context("display.max_colwidth", None):  # long values would end in dots
        return encodable(text.to_html(index=False))


def to_markdown(comparison: Comparison) -> str:
    """The table, pairs, failures and notes for a README or an issue."""
    table, pairs = comparison.table, comparison.pairs
    names = marked(table.assign(name=table["name"].map(escaped)), "**{}** (best)")
    parts = ["## Runs", markdown_table({"run": names} | {
        escaped(column.header): list(map(escaped, column.cells))
        for column in columns(comparison, table)})]
    if comparison.rows:
        parts.append(listed(legend(table, "best: ")))
    if pairs:
        metrics = dict.fromkeys(name for pair in pairs for name in pair.differences)
        parts += ["## Pairs", markdown_table(
            {"pair": [escaped(wording.pair_title(pair)) for pair in pairs]}
            | {escaped(wording.metric_title(name)): [difference_cell(pair.differences.get(name))
                                                     for pair in pairs] for name in metrics}),
            "Differences with 95% bootstrap intervals; bold where the interval excludes zero."]
        parts += [f"{escaped(wording.pair_title(pair))}:\n\n"
                  + listed(map(escaped, wording.pair_remarks(pair))) for pair in pairs]
    if comparison.failures:
        parts += ["## Not finished", listed(map(markdown_failure, comparison.failures))]
    if comparison.notes:
        parts += ["## Notes", listed(map(escaped, comparison.notes))]
    return encodable("\n\n".join(parts) + "\n")


def markdown_failure(run: Run) -> str:
    command = wording.rerun(run)
    return escaped(wording.failure(run)) + (f"\n\n  ```\n  {command}\n  ```" if command else "")


def difference_cell(found: Interval | None) -> str:
    if not found:
        return wording.UNDEFINED
    text = f"{found.value:+.3f} {wording.interval(found)}".rstrip()
    return f"**{text}**" if found.clear else f"{text}, {wording.verdict(found)}"


def markdown_table(cells: dict[str, list[str]]) -> str:
    # Without disable_numparse a run named 1e5 is printed as 100000.
    return pd.DataFrame(cells).to_markdown(index=False, disable_numparse=True)


def listed(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def escaped(text: str) -> str:
    """The text with what Markdown would interpret escaped."""
    return re.sub(r"([\\|*`<\[\]])", r"\\\1", one_line(text))


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "csv": to_csv, "md": to_markdown, "json": to_json}
"""The writer of each format, by file suffix."""


# Terminal

def show(comparison: Comparison, console: Console) -> None:
    """Prints a comparison; a table too wide for the terminal is split into several."""
    def write(text: str, style: str = "", indent: int = 2) -> None:
        console.print(Padding.indent(Text(text, style), indent))

    def heading(text: str) -> None:
        console.print()
        write(text, "bold", indent=0)

    if comparison.rows:
        show_rows(comparison, console)
    cautions = {pair.caution for pair in comparison.pairs}
    shared = cautions.pop() if len(cautions) == 1 and len(comparison.pairs) > 1 else None
    for pair in comparison.pairs:
        heading(wording.pair_title(pair))
        for name, found in pair.differences.items():
            style = ("green" if found.value > 0 else "red") if found.clear else "dim"
            write(f"{wording.metric_title(name):9}  {found.value:+.3f}  "
                  f"{wording.interval(found):16}  {wording.verdict(found)}", style)
        for remark in wording.pair_remarks(replace(pair, caution=None) if shared else pair):
            write(remark, "yellow" if remark.startswith("caution") else "")
    if shared:
        console.print()
        write(f"caution, for all pairs: {shared}", "yellow", indent=0)
    if comparison.failures:
        heading("not finished")
        for run in comparison.failures:
            write(wording.failure(run), "red")
            if command := wording.rerun(run):
                # A command broken over lines cannot be copied.
                console.print(Text(f"    {command}"), soft_wrap=True)
    if comparison.notes:
        heading("notes")
        for note in comparison.notes:
            write(one_line(note))


def show_rows(comparison: Comparison, console: Console) -> None:
    """Prints the table of rows, in as many parts as the width needs, each with the names."""
    table = comparison.table
    names = marked(table, "{} *")
    every = [column if column.group == "keys" else
             replace(column, header=column.header.replace(" ", "\n", 1))
             for column in columns(comparison, table)]
    width = min(max(map(cell_len, names)), max(16, console.width * 2 // 5))
    for number, part in enumerate(stacked(every, console.width - width)):
        grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False,
                     padding=(0, GAP - 1, 0, 0))
        grid.add_column("run", max_width=width, overflow="fold")
        for column in part:
            grid.add_column(Text(column.header), overflow="fold",
                            justify="left" if column.group == "keys" else "right")
        for index, name in enumerate(names):
            grid.add_row(Text(name), *(Text(column.cells[index]) for column in part),
                         style="bold" if table["best"][index] else "")
        if number:
            console.print()
        console.print(grid)
    console.print()
    for line in legend(table, "* "):
        console.print(Text(line))


def stacked(columns: Sequence[Column], room: int) -> list[list[Column]]:
    """The columns in parts that fit, with a group kept together where possible.

    Args:
        room: the terminal cells left by the names.
    """
    def width(part: Iterable[Column]) -> int:
        return sum(GAP + max(cell_len(line) for text in (column.header, *column.cells)
                             for line in text.split("\n")) for column in part)

    parts: list[list[Column]] = [[]]
    for _, members in itertools.groupby(columns, key=lambda column: column.group):
        group = list(members)
        if width(parts[-1] + group) > room >= width(group):
            parts.append([])
        for column in group:
            if parts[-1] and width([*parts[-1], column]) > room:
                parts.append([])
            parts[-1].append(column)
    return parts
