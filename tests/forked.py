"""Commands as processes that share one import of TensorFlow and of the other large libraries.

They are forked from a server that has imported these and nothing of flowerexp: a command takes half
of the seconds that it takes in a new interpreter. So are the interpreters that such a command
starts, a job of a sweep or a preview, which are its children as always. What those libraries read
from the environment when they are imported (TF_USE_LEGACY_KERAS) needs an interpreter of its own.
"""

import atexit
import importlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path

LIBRARIES = ["tensorflow", "tensorboard", "sklearn.metrics", "scipy.special", "pandas",
             "matplotlib.pyplot", "hydra", "jinja2", "typer"]
STATEFUL = ("flowerexp", "hydra", "hydra_plugins", "omegaconf", "my_parts")
"""Packages that a child imports anew, because what they hold is of its parent."""
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(LIBRARIES)
EXECUTE = subprocess._fork_exec


def fork_interpreters():
    """From now on, the interpreters that this process starts are forked from it."""
    for library in LIBRARIES:
        importlib.import_module(library)
    fork = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: fork
    subprocess._fork_exec = fork_exec


def fork_exec(arguments, executables, close_fds, pass_fds, folder, environment, *rest):
    """Like that of subprocess, for `python -P ...` of flowerexp without an exec."""
    words = [os.fsdecode(argument) for argument in arguments]
    if words[:2] != [sys.executable, "-P"]:
        return EXECUTE(arguments, executables, close_fds, pass_fds, folder, environment, *rest)
    descriptors, new_session = (rest[0], rest[3], rest[5]), rest[9]
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        if new_session:
            os.setsid()
        for number, descriptor in enumerate(descriptors):
            if descriptor >= 0:
                os.dup2(descriptor, number)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        atexit._clear()
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        for name in [name for name in sys.modules if name.partition(".")[0] in STATEFUL]:
            del sys.modules[name]
        program = next(index for index, word in enumerate(words) if word in ("-m", "-c"))
        code = execute_to_end(words[program:], folder or ".", dict(
            os.fsdecode(each).split("=", 1) for each in environment or ()) or dict(os.environ))
    finally:
        os._exit(code)


def execute_to_end(words, folder, environment):
    """The exit code of `python WORDS` in this process, with what an interpreter does at its end."""
    code = 0
    try:
        execute(words, folder, environment)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code & 0xFF


def execute(words, folder, environment):
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


def main(words, folder, environment, files):
    """What the process does: `python WORDS` in a folder, with its output in two files."""
    for number, file in enumerate(files, 1):
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    fork_interpreters()
    execute(words, folder, environment)


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


def call(function, folder, *texts):
    """What a function of a module of tests prints in a folder and a process of its own."""
    program = (f"import sys; from {function.__module__} import {function.__name__} as function; "
               "function(*sys.argv[1:])")
    done = run(["-c", program, *texts], folder)
    assert done.returncode == 0, done.stderr
    return done.stdout
