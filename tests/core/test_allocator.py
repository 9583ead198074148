import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from clipbench.core import allocator

def step():
    return np.ones(16_000_000)  # 128 MB

kept = allocator.keep() if sys.argv[1] == "kept" else None
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    step()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how, **variables):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    command = [sys.executable, "-c", FAULTS, how]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**kept, **variables}
    )
    done, count = done.stdout.split()
    return done, int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_of_a_step_is_there_for_the_next():
    _, plain = faults("plain")
    done, kept = faults("kept")
    assert done == "True"
    # Without it each page is asked for anew (fewer of them where the kernel gives huge ones).
    assert kept < plain / 10
    assert kept < 100


def test_who_has_told_the_allocator_otherwise_is_heard():
    assert faults("kept", MALLOC_TRIM_THRESHOLD_="131072")[0] == "False"
