"""A comparison as a data frame, CSV, JSON, Markdown, HTML table, and on the terminal."""

import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flowerexp.comparison import summary
from flowerexp.comparison.comparison import Comparison
from flowerexp.comparison.pairs import Interval
from flowerexp.runs.reader import Run

GAP = 2
"""The cells between two columns on the terminal."""


def frame(comparison: Comparison) -> pd.DataFrame:
    """The data frame of `Comparison.table`."""
    best = summary.best_row(comparison)
    names = summary.all_numbers(comparison)
    rows = []
    for index, row in enumerate(comparison.rows):
        head = {"name": row.name, "best": index == best, "n": len(row.counted),
                "seeds": ", ".join(str(run.seed) for run in row.counted),
                "state": summary.state(row)}
        numbers = {title: value for name, (mean, deviation) in summary.means(row, names).items()
                   for title, value in ((name, mean), (f"{name} std", deviation))}
        rows.append(head | {key: summary.value_text(value) if isinstance(value, list) else value
                            for key, value in row.differing.items()} | numbers)
    return pd.DataFrame(rows)


def to_csv(comparison: Comparison) -> str:
    """`frame` as CSV; undefined values are empty."""
    return encodable(frame(comparison).to_csv(index=False, lineterminator="\n"))


def to_json(comparison: Comparison) -> str:
    """Rows, pairs, failures and notes as strict JSON; undefined values are null."""
    best = summary.best_row(comparison)
    names = summary.all_numbers(comparison)
    rows = [{"name": row.name, "best": index == best, "state": summary.state(row),
             "n": len(row.counted),
             "runs": [{"folder": str(run.folder), "seed": run.seed, "state": run.state,
                       "epochs done": len(run.history)} for run in row.runs],
             "differing": row.differing,
             "numbers": {name: {"mean": mean, "std": deviation}
                         for name, (mean, deviation) in summary.means(row, names).items()}}
            for index, row in enumerate(comparison.rows)]
    pairs = [{"name": pair.name, "baseline": pair.baseline, "epoch": pair.epoch,
              "chosen on the same data": pair.epoch == "best", "seeds": pair.seeds,
              "differences": {name: {"value": found.value, "low": found.low, "high": found.high,
                                     "clear": found.clear}
                              for name, found in pair.differences.items()},
              "agreement": pair.agreement, "mcnemar p": pair.p_value, "gained": pair.gained,
              "lost": pair.lost, "time ratio": pair.time_ratio, "caution": pair.caution}
             for pair in comparison.pairs]
    failures = [{"folder": str(run.folder), "name": run.name, "seed": run.seed,
                 "state": run.state, "error": run.error, "epochs done": len(run.history),
                 "epochs": run.epochs, "rerun": summary.rerun(run)} for run in comparison.failures]
    found = jsonable({"rows": rows, "pairs": pairs, "failures": failures,
                      "notes": comparison.notes})
    return encodable(json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def encodable(text: str) -> str:
    """The text with bytes replaced that a folder's name may hold and a text file may not."""
    return text.encode("utf-8", "replace").decode("utf-8")


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
    best = summary.best_row(comparison)
    names = [f"{row.name} (best)" if index == best else row.name
             for index, row in enumerate(comparison.rows)]
    table = pd.DataFrame({"run": list(map(summary.one_line, names))} | {
        column.header: column.cells for column in summary.columns(comparison)})
    with pd.option_context("display.max_colwidth", None):  # long values would end in dots
        return encodable(table.to_html(index=False))


def to_markdown(comparison: Comparison) -> str:
    """The table, pairs, failures and notes for a README or an issue."""
    best = summary.best_row(comparison)
    names = [f"**{escaped(row.name)}** (best)" if index == best else escaped(row.name)
             for index, row in enumerate(comparison.rows)]
    parts = ["## Runs", markdown_table({"run": names} | {
        escaped(column.header): list(map(escaped, column.cells))
        for column in summary.columns(comparison)})]
    parts += [listed(([f"best: {summary.BEST}"] if best is not None else [])
                     + summary.legend(comparison))] if comparison.rows else []
    if comparison.pairs:
        pairs = comparison.pairs
        metrics = dict.fromkeys(name for pair in pairs for name in pair.differences)
        parts += ["## Pairs", markdown_table({
            "pair": [escaped(summary.pair_title(pair)) for pair in pairs], **{
                escaped(summary.metric_title(name)): [
                    difference_cell(pair.differences.get(name)) for pair in pairs]
                for name in metrics}}),
            "Differences with 95% bootstrap intervals; bold where the interval excludes zero."]
        parts += [f"{escaped(summary.pair_title(pair))}:\n\n" + listed(map(escaped, remarks))
                  for pair in pairs if (remarks := summary.pair_remarks(pair))]
    if comparison.failures:
        parts += ["## Not finished", listed(map(markdown_failure, comparison.failures))]
    if comparison.notes:
        parts += ["## Notes", listed(map(escaped, comparison.notes))]
    return encodable("\n\n".join(parts) + "\n")


def markdown_failure(run: Run) -> str:
    command = summary.rerun(run)
    return escaped(summary.failure(run)) + (f"\n\n  ```\n  {command}\n  ```" if command else "")


def difference_cell(found: Interval | None) -> str:
    if not found:
        return summary.UNDEFINED
    text = f"{found.value:+.3f} {summary.interval(found)}".rstrip()
    return f"**{text}**" if found.clear else f"{text}, {summary.verdict(found)}"


def markdown_table(cells: dict[str, list[str]]) -> str:
    # Without disable_numparse a run named 1e5 is printed as 100000.
    return pd.DataFrame(cells).to_markdown(index=False, disable_numparse=True)


def listed(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def escaped(text: str) -> str:
    """The text with what Markdown would interpret escaped."""
    return re.sub(r"([\\|*`<\[\]])", r"\\\1", summary.one_line(text))


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "csv": to_csv, "md": to_markdown, "json": to_json}
"""The writer of each format, by file suffix."""


# Terminal

def show(comparison: Comparison, console: Console) -> None:
    """Prints a comparison; a table too wide for the terminal is split into several."""
    def write(text: str, style: str = "", indent: int = 2) -> None:
        for line in Text(text, style=style).wrap(console, console.width - indent):
            line.rstrip()
            console.print(Text(" " * indent).append_text(line))

    def heading(text: str) -> None:
        console.print()
        write(text, "bold", indent=0)

    show_rows(comparison, console)
    cautions = {pair.caution for pair in comparison.pairs}
    shared = cautions.pop() if len(cautions) == 1 and len(comparison.pairs) > 1 else None
    for pair in comparison.pairs:
        heading(summary.pair_title(pair))
        for name, found in pair.differences.items():
            style = ("green" if found.value > 0 else "red") if found.clear else "dim"
            write(f"{summary.metric_title(name):9}  {found.value:+.3f}  "
                  f"{summary.interval(found):16}  {summary.verdict(found)}", style)
        for remark in summary.pair_remarks(replace(pair, caution=None) if shared else pair):
            write(remark, "yellow" if remark.startswith("caution") else "")
    if shared:
        console.print()
        write(f"caution, for all pairs: {shared}", "yellow", indent=0)
    if comparison.failures:
        heading("not finished")
        for run in comparison.failures:
            write(summary.failure(run), "red")
            if command := summary.rerun(run):
                # A command broken over lines cannot be copied.
                console.print(Text(encodable(f"    {command}")), soft_wrap=True)
    if comparison.notes:
        heading("notes")
        for note in comparison.notes:
            write(summary.one_line(note))


def show_rows(comparison: Comparison, console: Console) -> None:
    """Prints the table of rows, in as many parts as the width needs, each with the names."""
    best = summary.best_row(comparison)
    names = [summary.one_line(row.name) + (" *" if index == best else "")
             for index, row in enumerate(comparison.rows)]
    if not names:
        return
    columns = [summary.Column(column.group, column.header if column.group == "keys" else
                              column.header.replace(" ", "\n", 1), column.cells)
               for column in summary.columns(comparison)]
    width = min(max(map(cell_len, names)), max(16, console.width * 2 // 5))
    for number, part in enumerate(stacked(columns, console.width - width)):
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False,
                      padding=(0, GAP - 1, 0, 0))
        table.add_column("run", max_width=width, overflow="fold")
        for column in part:
            table.add_column(Text(column.header), overflow="fold",
                             justify="left" if column.group == "keys" else "right")
        for index, name in enumerate(names):
            table.add_row(Text(name), *(Text(column.cells[index]) for column in part),
                          style="bold" if index == best else "")
        if number:
            console.print()
        console.print(table)
    console.print()
    marked = [f"* {summary.BEST}"] if best is not None else []
    for line in marked + summary.legend(comparison):
        console.print(Text(line))


def stacked(columns: Sequence[summary.Column], room: int) -> list[list[summary.Column]]:
    """The columns in parts that fit, with a group kept together where possible.

    Args:
        room: the terminal cells left by the names.
    """
    def width(part: Iterable[summary.Column]) -> int:
        return sum(GAP + max(cell_len(line) for text in (column.header, *column.cells)
                             for line in text.split("\n")) for column in part)

    parts: list[list[summary.Column]] = [[]]
    for _, members in itertools.groupby(columns, key=lambda column: column.group):
        group = list(members)
        if parts[-1] and width(parts[-1] + group) > room >= width(group):
            parts.append([])
        for column in group:
            if parts[-1] and width([*parts[-1], column]) > room:
                parts.append([])
            parts[-1].append(column)
    return parts
