"""What a machine with less memory would have to offer."""

import resource
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def memory(mebibytes):
    """Let this process take no more address space than it has and so many MiB."""
    statm = Path("/proc/self/statm")
    if not statm.is_file():
        pytest.skip("only Linux says how much address space a process has")
    used = int(statm.read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + mebibytes * 2**20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
