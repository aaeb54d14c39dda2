"""A comparison as a data frame, CSV, JSON, Markdown, and on the terminal."""

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
from flowerexp.comparison.comparison import Comparison, Interval
from flowerexp.runs.reader import Run

GAP = 2
"""Between two columns of the terminal."""


def frame(comparison: Comparison) -> pd.DataFrame:
    """One row a Row.

    The columns are `name`, `best` (whether it is the marked row), `n` (runs that its numbers are
    of), `seeds` and `state` (texts); the keys in which rows differ; then every number of
    `comparison.load`, its mean under its own name and the standard deviation (n - 1) under
    `... std`. Undefined is NaN.
    """
    best = summary.best_row(comparison)
    rows = []
    for index, row in enumerate(comparison.rows):
        head = {"name": row.name, "best": index == best, "n": len(row.counted),
                "seeds": ", ".join(str(run.seed) for run in row.counted),
                "state": summary.state(row)}
        numbers = {title: value for name, (mean, deviation) in summary.means(row).items()
                   for title, value in ((name, mean), (f"{name} std", deviation))}
        rows.append(head | {key: summary.value_text(value) if isinstance(value, list) else value
                            for key, value in row.differing.items()} | numbers)
    return pd.DataFrame(rows)


def to_csv(comparison: Comparison) -> str:
    """`frame` as CSV; undefined is empty."""
    return encodable(frame(comparison).to_csv(index=False, lineterminator="\n"))


def to_json(comparison: Comparison) -> str:
    """Rows, pairs, failures and notes as strict JSON; undefined is null."""
    best = summary.best_row(comparison)
    rows = [{"name": row.name, "best": index == best, "state": summary.state(row),
             "n": len(row.counted),
             "runs": [{"folder": str(run.folder), "seed": run.seed, "state": run.state,
                       "epochs done": len(run.history)} for run in row.runs],
             "differing": row.differing,
             "numbers": {name: {"mean": mean, "std": deviation}
                         for name, (mean, deviation) in summary.means(row).items()}}
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
    found = plain({"rows": rows, "pairs": pairs, "failures": failures, "notes": comparison.notes})
    return encodable(json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def encodable(text: str) -> str:
    """The text without what a folder's name may hold and no text file: bytes of no character."""
    return text.encode("utf-8", "replace").decode("utf-8")


def plain(value: Any) -> Any:
    """The value as JSON has it: undefined numbers as None, whatever else YAML knows as text."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


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
        parts += ["## Pairs", markdown_table({
            "pair": [escaped(summary.pair_title(pair)) for pair in pairs], **{
                title: [difference_cell(pair.differences[name]) for pair in pairs]
                for name, title in summary.NAMES.items()}}),
            "Differences with 95 % bootstrap intervals; bold where the interval leaves out zero."]
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


def difference_cell(found: Interval) -> str:
    text = f"{found.value:+.3f} {summary.interval(found)}"
    return f"**{text}**" if found.clear else f"{text}, {summary.verdict(found)}"


def markdown_table(cells: dict[str, list[str]]) -> str:
    # Without disable_numparse a run named 1e5 is printed as 100000.
    return pd.DataFrame(cells).to_markdown(index=False, disable_numparse=True)


def listed(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\|*`<\[\]])", r"\\\1", summary.one_line(text))


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "csv": to_csv, "md": to_markdown, "json": to_json}
"""By the suffix of a file."""


# Terminal

def show(comparison: Comparison, console: Console) -> None:
    """Prints a comparison; what is too wide stands in several tables, one below the other."""
    def say(text: str, style: str = "", indent: int = 2) -> None:
        for line in Text(text, style=style).wrap(console, console.width - indent):
            line.rstrip()
            console.print(Text(" " * indent).append_text(line))

    def title(text: str) -> None:
        console.print()
        say(text, "bold", indent=0)

    show_rows(comparison, console)
    cautions = {pair.caution for pair in comparison.pairs}
    shared = cautions.pop() if len(cautions) == 1 and len(comparison.pairs) > 1 else None
    for pair in comparison.pairs:
        title(summary.pair_title(pair))
        for name, found in pair.differences.items():
            style = ("green" if found.value > 0 else "red") if found.clear else "dim"
            say(f"{summary.NAMES[name]:9}  {found.value:+.3f}  {summary.interval(found)}  "
                f"{summary.verdict(found)}", style)
        for sentence in summary.pair_remarks(replace(pair, caution=None) if shared else pair):
            say(sentence, "yellow" if sentence.startswith("caution") else "")
    if shared:
        console.print()
        say(f"caution, of all pairs: {shared}", "yellow", indent=0)
    if comparison.failures:
        title("not finished")
        for run in comparison.failures:
            say(summary.failure(run), "red")
            if command := summary.rerun(run):
                # A command that is broken over lines cannot be copied.
                console.print(Text(encodable(f"    {command}")), soft_wrap=True)
    if comparison.notes:
        title("notes")
        for note in comparison.notes:
            say(summary.one_line(note))


def show_rows(comparison: Comparison, console: Console) -> None:
    """The table of rows, in as many parts as the width needs, each with the names."""
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
    for sentence in marked + summary.legend(comparison):
        console.print(Text(sentence))


def stacked(columns: Sequence[summary.Column], room: int) -> list[list[summary.Column]]:
    """The columns as parts that fit, a group together where it can be.

    Args:
        room: cells beside the names.
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
