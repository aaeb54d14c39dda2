"""Pictures as Matplotlib figures, drawn without a display, and HTML pages that hold them.

They take arrays and histories and need no TensorFlow. Public names: `history.draw`,
`confusion.draw`, `classes.draw`, `gallery.grid`, `gallery.side_by_side`, `gallery.pairs`,
`distributions.shares`, `distributions.occurrences`, `distributions.learning_rate`, `style.save`,
`page.Picture` and `page.write`.
"""
