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
import tempfile
from multiprocessing import forkserver, resource_tracker, util
from pathlib import Path

from clipbench.core import paths


def run(command, variables, timeout):
    """Run ``[python, -m, module, ...]``; return as :func:`subprocess.run` does.

    Raises:
        subprocess.TimeoutExpired: after ``timeout`` seconds; all processes are then killed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["clipbench.training.run", "clipbench.sweeps.session"])
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = context.Process(target=_command, args=(command[2:], variables, out, err))
        process.start()
        process.join(timeout)
        if process.is_alive():
            os.killpg(process.pid, signal.SIGKILL)
            process.join()
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(
            command, process.exitcode, out.read_text(), err.read_text()
        )


def _command(words, variables, *files):
    os.setpgid(0, 0)
    for number, file in enumerate(files, 1):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(paths.ROOT)
    resource_tracker.ensure_running()
    execute, util.spawnv_passfds = util.spawnv_passfds, _fork
    forkserver.ensure_running()  # which the command's launcher then finds
    util.spawnv_passfds = execute
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
