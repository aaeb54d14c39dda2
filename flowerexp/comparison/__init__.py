"""Comparison of run folders: tables, and the significance of differences.

Runs that differ only in their seed form a row; a row and its baseline form a pair with bootstrap
intervals. It reads run folders only and needs no TensorFlow. Public names: `comparison.compare`,
`comparison.Comparison` (`table`, `differences`, `to_html`), `comparison.load` (a row per run),
`rows.Row`, `pairs.Pair`, `pairs.Interval`, `significance.bootstrap`, `significance.mcnemar`,
`tables.FORMATS` and `tables.show` (CSV, JSON, Markdown, terminal), `report.write` (the page and its
pictures).
"""
