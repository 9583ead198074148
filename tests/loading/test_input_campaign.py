"""A part of ``make faults-input``, and that it would find what it looks for."""

from unittest import mock

import pytest

from tests.faults import input as campaign


def test_folders_are_read_as_they_are_meant_or_refused_in_a_line():
    ends, faults, changes = campaign.run(range(5000, 5150))
    assert faults == {}
    assert ends["traceback"] == 0
    assert ends[campaign.READ] > 50
    assert ends[campaign.REFUSED] > 30
    assert {change.__name__ for change in campaign.CHANGES} <= changes.keys()


@pytest.mark.parametrize(
    "fault",
    [
        *("system files are images", "splits in one spelling", "an image is lost when divided"),
        *("labels of another order", "endings alone tell", "links to nowhere are no matter"),
    ],
)
def test_a_planted_fault_is_found(fault):
    planted = {fault: campaign.PLANTED[fault]}
    with mock.patch.object(campaign, "PLANTED", planted):
        assert campaign.teeth(60)[fault] is not None
