import pytest

from clipbench.datamodules.names import chosen, class_names, templates
from clipbench.errors import Refused

KEYS = ["n01", "n02", "n03"]
OWN = ["rose", "tulip", "iris"]
VARIANTS = {"latin": ["Rosa", "Tulipa", "Iris"]}


def test_names_are_the_dataset_s_a_variant_s_or_the_user_s(tmp_path):
    assert class_names(KEYS, OWN, None, VARIANTS) == OWN
    assert class_names(KEYS, OWN, "latin", VARIANTS) == ["Rosa", "Tulipa", "Iris"]
    assert class_names(KEYS, OWN, ["a", "b", "c"], VARIANTS) == ["a", "b", "c"]
    given = {"n03": "c", "n01": "a", "n02": "b"}
    assert class_names(KEYS, OWN, given, {}) == ["a", "b", "c"]
    (tmp_path / "names.json").write_text('["a", "b", "c"]')
    assert class_names(KEYS, OWN, str(tmp_path / "names.json"), VARIANTS) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("greek", "no dataset.class_names=greek; there are latin, or a file"),
        (["a", "b"], "2 names for 3 classes"),
        ({"n01": "a", "n02": "b", "n04": "d"}, "first n03"),
        ("absent.yaml", "cannot be read"),
    ],
)
def test_names_that_do_not_fit_are_refused(given, message):
    with pytest.raises(Refused, match=message):
        class_names(KEYS, OWN, given, VARIANTS)


def test_templates_are_a_list_or_a_file_of_one(tmp_path):
    assert templates(None, ["{}"]) == ["{}"]
    assert templates(["a {}"], ["{}"]) == ["a {}"]
    (tmp_path / "t.yaml").write_text("- a {} at night\n- a {} by day\n")
    assert templates(str(tmp_path / "t.yaml"), ["{}"]) == ["a {} at night", "a {} by day"]
    (tmp_path / "t.yaml").write_text("night: a {}\n")
    with pytest.raises(Refused, match="holds no list"):
        templates(str(tmp_path / "t.yaml"), ["{}"])


def test_a_subset_is_named_by_key_name_label_or_number():
    assert chosen(KEYS, OWN, 2) == [0, 1]
    assert chosen(KEYS, OWN, ["iris", "n01"]) == [2, 0]
    assert chosen(KEYS, OWN, [2, 1]) == [2, 1]
    for wrong in (["daisy", "rose"], [3, 0], ["rose", "n01"], 1, 4):
        with pytest.raises(Refused, match=r"dataset.subset"):
            chosen(KEYS, OWN, wrong)
