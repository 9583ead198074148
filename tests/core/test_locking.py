import errno
import fcntl

from clipbench.core.locking import wait_for_lock


def test_a_disk_without_locks_gets_no_marker_that_outlives_its_process(tmp_path, monkeypatch):
    with wait_for_lock(tmp_path / "a.lock") as locked:
        assert locked

    def flock(file, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    for _ in range(2):  # neither waits for the other
        with wait_for_lock(tmp_path / "b.lock") as first:
            assert not first
            with wait_for_lock(tmp_path / "b.lock") as second:
                assert not second
