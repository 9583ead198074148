import pkgutil

from tests.faults import planted


def test_what_a_case_blinds_is_where_it_says():
    names = {name for case in planted.cases() for name in case.blind}
    assert len(names) > 10
    for name in names:
        pkgutil.resolve_name(name)
