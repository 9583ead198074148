"""Commands in processes forked from a server that has the libraries loaded, for quick tests.

A command that trains starts a fork server of its own, which imports torch in 7 s of CPU time. Here
both the command and its server are forked, with all else as it is: the same processes, with the
same parents, signals and streams.
"""

import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from multiprocessing import forkserver, resource_tracker, util
from pathlib import Path

from clipbench.core import paths


class Command:
    """What tests use of :class:`subprocess.Popen`, for a command in a forked process.

    Args:
        words: ``[module, ...]``, as after ``python -m``.
        variables: its environment.
        out: the file that it prints to.
        err: likewise; by default the same.
        prepare: called in the command's process first, by whose side its server is forked.
    """

    def __init__(self, words, variables, out, err=None, prepare=None):
        self.out = out
        files = (out, err or out)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["clipbench.training.run", "clipbench.sweeps.session"])
        self._process = context.Process(target=_command, args=(words, variables, files, prepare))
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self):
        return self._process.exitcode

    def poll(self):
        return self._process.exitcode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        """End it and all that it started in its group."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.kill()
            self._process.join()

    def wait(self, timeout):
        self._process.join(timeout)
        if self.returncode is None:
            self.kill()
            raise subprocess.TimeoutExpired(self.out, timeout)
        return self.returncode

    def communicate(self, timeout):
        self.wait(timeout)
        return self.out.read_text(), None


def start():
    """Let this process's fork server be a fork of itself, if it has torch loaded.

    For the beginning of a test session, when nothing is patched yet.
    """
    if "clipbench.training.run" not in sys.modules:
        return
    resource_tracker.ensure_running()
    execute, util.spawnv_passfds = util.spawnv_passfds, _fork
    forkserver.ensure_running()
    util.spawnv_passfds = execute


def _command(words, variables, files, prepare):
    os.setpgid(0, 0)
    for number, file in enumerate(files, 1):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(paths.ROOT)
    if prepare:
        prepare()
    start()  # the server that the command's launcher will find
    sys.argv = list(words)
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


def _fork(executable, command, inherited):
    """Go on in a fork where multiprocessing starts Python anew; other files are closed."""
    if pid := os.fork():
        return pid
    for number in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if number > 2 and number not in inherited:
            with contextlib.suppress(OSError):  # that of the listing itself
                os.close(number)
    try:
        exec(command[-1])
    finally:
        os._exit(1)
