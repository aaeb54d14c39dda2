"""Run folders: their files, their status, and how they are read. No TensorFlow here.

`store` writes and reads single files, whole or not at all; `status.RunStatus` is status.json.
`reader` finds run folders (`find_folders`) and reads them in any state (`read_run`, `Run`).
`log.RunLogger` writes run.log and the terminal's lines, `provenance` records versions and the git
commit (`versions`, `commit`), and `timing` estimates the training time (`seconds_per_image`).
"""
