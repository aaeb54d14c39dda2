"""Run folders: their files, their status, and how they are read. No TensorFlow here.

`store` writes single files, whole or not at all, and reads them, checked. `status.RunStatus` is
status.json. `reader` finds run folders (`find_folders`), reads them in any state (`read_run`,
`Run`), and estimates training times from them (`seconds_per_image`). `log.RunLogger` writes run.log
and the terminal's lines, `provenance` records versions and the git commit (`versions`, `commit`).
"""
