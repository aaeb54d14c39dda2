"""Run folders: their files, their status, and how they are read. No TensorFlow here.

`store` writes and reads the single files, whole or not at all. `status.RunStatus` is status.json.
`reader` finds run folders (`find_folders`) and reads them for a comparison, whatever state they are
in (`read_run`, `Run`). `log.RunLogger` writes run.log, the terminal's lines and the status while a
run trains, and `provenance` says which versions and which commit it ran on.
"""
