import pytest

from clipbench.core.errors import UserError
from clipbench.loading.class_names import chosen, class_names, class_of, templates

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
        ("greek", "dataset.class_names=greek: unknown. Use one of latin, or a file"),
        (["a", "b"], "2 names for 3 classes"),
        ({"n01": "a", "n02": "b", "n04": "d"}, "first n03"),
        ("absent.yaml", "cannot be read"),
    ],
)
def test_names_that_do_not_fit_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        class_names(KEYS, OWN, given, VARIANTS)


def test_templates_are_a_list_or_a_file_of_one(tmp_path):
    assert templates(None, ["{}"]) == ["{}"]
    assert templates(["a {}"], ["{}"]) == ["a {}"]
    (tmp_path / "t.yaml").write_text("- a {} at night\n- a {} by day\n")
    assert templates(str(tmp_path / "t.yaml"), ["{}"]) == ["a {} at night", "a {} by day"]
    (tmp_path / "t.yaml").write_text("night: a {}\n")
    with pytest.raises(UserError, match="does not hold a list"):
        templates(str(tmp_path / "t.yaml"), ["{}"])


def test_a_subset_is_named_by_key_name_label_or_number():
    assert chosen(KEYS, OWN, 2) == [0, 1]
    assert chosen(KEYS, OWN, ["iris", "n01"]) == [2, 0]
    assert chosen(KEYS, OWN, [2, 1]) == [2, 1]
    for wrong in (["daisy", "rose"], [3, 0], ["rose", "n01"], 1, 4):
        with pytest.raises(UserError, match=r"dataset.subset"):
            chosen(KEYS, OWN, wrong)


ODD = ["no", "yes", "007", "1e3", "null", "0x10", "12:30", "on"]


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_names_in_a_file_are_text_whatever_they_look_like(tmp_path, suffix):
    path = tmp_path / f"names{suffix}"
    mapping, listed = dict(zip(KEYS, ODD, strict=False)), ODD
    if suffix == ".yaml":
        path.write_text("".join(f"{key}: {name}\n" for key, name in mapping.items()))
    else:
        path.write_text('{"n01": "no", "n02": "yes", "n03": 007}'.replace("007", '"007"'))
    assert class_names(KEYS, OWN, str(path), {}) == ODD[:3]
    path.write_text("[" + ", ".join(f'"{n}"' if suffix == ".json" else n for n in listed) + "]")
    assert class_names([str(k) for k in range(8)], ODD, str(path), {}) == ODD


def test_keys_in_a_file_are_text_and_occur_once(tmp_path):
    path = tmp_path / "names.yaml"
    path.write_text("007: bond\nno: norway\n")
    assert class_names(["007", "no"], ["a", "b"], str(path), {}) == ["bond", "norway"]
    path.write_text("007: bond\nno: norway\n007: moore\n")
    with pytest.raises(UserError, match="the key 007 occurs twice"):
        class_names(["007", "no"], ["a", "b"], str(path), {})


@pytest.mark.parametrize("value", [False, 1e3])
def test_a_name_that_a_parser_took_for_something_else(value):
    with pytest.raises(UserError, match="was not read as text"):
        class_names(KEYS, OWN, ["a", value, "b"], {})


NUMBERED = [str(n) for n in range(1, 13)]


def test_a_number_that_may_be_a_position_or_a_name_is_refused():
    with pytest.raises(UserError, match=r"dataset\.subset: 1 may be 1 \(label 0.* or 2 \(label 1"):
        chosen(NUMBERED, NUMBERED, [1, 2, 3])
    assert chosen(NUMBERED, NUMBERED, [0, "12"]) == [0, 11]
    digits = [str(n) for n in range(10)]
    assert chosen(digits, digits, [3, 1]) == [3, 1]  # either way the same
    with pytest.raises(UserError, match="rose may be n01"):
        chosen(["n01", "rose"], ["rose", "tulip"], ["rose", "tulip"])


def test_a_folder_bears_the_name_of_one_class():
    assert class_of("a", ["A", "a", "b"]) == "a"
    assert class_of("A", ["A", "a", "b"]) == "A"
    assert class_of("B", ["A", "a", "b"]) == "b"
    assert class_of("Cat", ["CAT", "cat"]) is None
    assert class_of("black_cat", ["dog", "black cat"]) == "black cat"
    assert class_of("cafe\u0301", ["caf\u00e9"]) == "caf\u00e9"
    assert class_of("cow", ["dog"]) is None
