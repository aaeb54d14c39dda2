"""Commands as processes that share one import of TensorFlow and of the other large libraries.

They are forked from a server that has imported these and nothing of flowerexp: a command takes half
of the seconds that it takes in a new interpreter. What those libraries read from the environment
when they are imported (TF_USE_LEGACY_KERAS) needs an interpreter of its own.
"""

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tensorflow", "tensorboard", "sklearn.metrics", "scipy.special",
                               "pandas", "matplotlib.pyplot", "hydra", "jinja2", "typer"])


def main(words, folder, environment, files):
    """What the process does: `python WORDS` in a folder, with its output in two files."""
    for number, file in enumerate(files, 1):
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
                              for number in (1, 2))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        elif words[0] == "-c":
            sys.argv = ["-c", *words[2:]]
            exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = words
            sys.path.insert(0, str(Path(words[0]).parent))
            runpy.run_path(words[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()


class Command:
    """`python WORDS` as a process, with the methods of subprocess.Popen."""

    def __init__(self, words, folder, environment=None):
        self.words = list(map(str, words))
        self.files = [tempfile.NamedTemporaryFile(mode="r", encoding="utf-8")  # noqa: SIM115
                      for _ in range(2)]
        names = [file.name for file in self.files]
        self.process = SERVER.Process(target=main, args=(
            self.words, str(folder), dict(environment or os.environ), names))
        self.process.start()
        self.pid = self.process.pid

    @property
    def returncode(self):
        return self.process.exitcode

    def poll(self):
        return self.process.exitcode

    def wait(self, timeout=None):
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired(self.words, timeout)
        return self.process.exitcode

    def communicate(self, timeout=None):
        self.wait(timeout)
        return tuple(file.read() for file in self.files)

    def send_signal(self, number):
        os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def run(words, folder, environment=None, timeout=240):
    """Like subprocess.run of `python WORDS` with its output captured."""
    command = Command(words, folder, environment)
    try:
        output, errors = command.communicate(timeout)
    finally:
        if command.poll() is None:
            command.kill()
            command.wait()
    return subprocess.CompletedProcess(command.words, command.returncode, output, errors)
