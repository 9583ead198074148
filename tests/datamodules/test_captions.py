import csv
import json
import os
import unicodedata
from pathlib import Path

import open_clip
import pandas as pd
import pytest

from clipbench.core.errors import UserError
from clipbench.datamodules.captions import CaptionsDataModule, too_long
from tests.datamodules.folders import draw

REAL = Path(os.environ.get("CLIPBENCH_DATA", "nowhere")) / "flickr8k"
real_photos = pytest.mark.skipif(not REAL.is_dir(), reason="needs CLIPBENCH_DATA/flickr8k")
TEXTS = [
    "A dog, running.",
    'a sign says "stop"',
    "two lines\nof text",
    " naïve — café ",
    "猫",
    "a  b",
]
NAMES = [f"images/{i}.jpg" for i in range(12)]
ROWS = [(name, f"{text} {i}") for i, name in enumerate(NAMES) for text in TEXTS[: 1 + i % 6]]


def images(root, names=NAMES):
    for k, name in enumerate(names):
        draw(root / name, seed=k)


def table(path, rows, header=("image", "caption"), encoding="utf-8", **form):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.writer(file, **form)
        writer.writerows([header, *rows] if header else rows)
    return path


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def prepared(file, **keys):
    data = CaptionsDataModule(file=file, **keys)
    data.prepare(0)
    return data


def read(data):
    """(id, caption) of all splits."""
    return sorted(
        (i, text)
        for split in data.splits.values()
        for i, own in zip(split.ids, split.captions, strict=True)
        for text in own
    )


@pytest.mark.parametrize(
    ("suffix", "form"),
    [
        (".csv", {}),
        (".csv", {"delimiter": ";", "lineterminator": "\n"}),
        (".txt", {"delimiter": "|", "quoting": csv.QUOTE_ALL}),
        (".tsv", {"delimiter": "\t"}),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_table_in_any_form_is_read_to_the_letter(tmp_path, suffix, form, encoding):
    images(tmp_path)
    file = table(tmp_path / f"my{suffix}", ROWS, encoding=encoding, **form)
    data = prepared(file)
    data.check()
    assert read(data) == sorted(ROWS)
    other = pd.read_csv(file, sep=form.get("delimiter", ","), encoding=encoding)
    assert read(data) == sorted(other.itertuples(index=False, name=None))


@pytest.mark.parametrize("several", [False, True])
def test_json_lines(tmp_path, several):
    images(tmp_path)
    if several:
        own = {name: [text for n, text in ROWS if n == name] for name in NAMES}
        rows = [{"file_name": name, "captions": texts, "width": 24} for name, texts in own.items()]
    else:
        rows = [{"file_name": name, "text": text} for name, text in ROWS]
    assert read(prepared(lines(tmp_path / "meta.jsonl", rows))) == sorted(ROWS)


def test_an_images_captions_stay_together(tmp_path):
    images(tmp_path)
    mixed = ROWS[::2] + ROWS[1::2]
    data = prepared(table(tmp_path / "my.csv", mixed), test_fraction=0.25, val_fraction=0.25)
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 7,
        "val": 2,
        "test": 3,
    }
    ids = [set(split.ids) for split in data.splits.values()]
    assert sum(map(len, ids)) == len(set.union(*ids)) == 12
    again = prepared(
        table(tmp_path / "other.csv", ROWS[::-1]), test_fraction=0.25, val_fraction=0.25
    )
    for name, split in data.splits.items():
        assert again.splits[name].fingerprint() == split.fingerprint()
        assert again.splits[name].rule == split.rule
    assert data.splits["test"].rule == "0.25 of each caption file by lowest sha256 of the id"


def test_a_split_column(tmp_path):
    images(tmp_path)
    told = ["train"] * 6 + ["dev", "Validation", "test", "test", "test_night", "train "]
    split = dict(zip(NAMES, told, strict=True))
    rows = [(name, split[name], text) for name, text in ROWS]
    file = table(tmp_path / "my.csv", rows, ("filepath", "split", "title"))
    data = prepared(file)
    assert {name: list(split.ids) for name, split in data.splits.items()} == {
        "train": [*NAMES[:6], NAMES[11]],
        "val": NAMES[6:8],
        "test": NAMES[8:10],
        "test_night": [NAMES[10]],
    }
    assert data.splits["train"].rule is None
    by_fold = table(tmp_path / "fold.csv", rows, ("filepath", "fold", "title"))
    named = prepared(by_fold, split_key="fold")
    assert {n: s.fingerprint() for n, s in named.splits.items()} == {
        n: s.fingerprint() for n, s in data.splits.items()
    }
    assert set(prepared(by_fold).splits) == {"train", "val", "test"}


def test_what_no_split_names_is_carved(tmp_path):
    images(tmp_path)
    rows = [(name, text, "test" if name in NAMES[:3] else "train") for name, text in ROWS]
    data = prepared(table(tmp_path / "my.csv", rows, ("image", "caption", "split")))
    assert list(data.splits["test"].ids) == NAMES[:3]
    assert [len(data.splits[n]) for n in ("train", "val")] == [7, 2]


def test_columns_that_are_named(tmp_path):
    images(tmp_path)
    rows = [(text, name, "x.png", "other") for name, text in ROWS]
    file = table(tmp_path / "my.csv", rows, ("German", "photo", "image", "caption"))
    data = prepared(file, path_key="photo", caption_key="German")
    assert read(data) == sorted(ROWS)
    with pytest.raises(
        UserError, match=r"caption_key=german is not a column .* did you mean German\?"
    ):
        prepared(file, path_key="photo", caption_key="german")
    with pytest.raises(
        UserError, match=r"dataset\.path_key=x is not a column .* there are German, photo"
    ):
        prepared(file, path_key="x")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (("image", "name"), "is the caption in one of image, name"),
        (("image", "text", "caption"), "is the caption in text or caption"),
        (("picture", "caption"), "is the path in one of picture, caption"),
        (("caption", "caption"), "columns of the same name"),
    ],
)
def test_columns_that_are_not_clear(tmp_path, header, message):
    file = table(tmp_path / "my.csv", [("a.jpg", "b", "c")[: len(header)]], header)
    with pytest.raises(UserError, match=message):
        prepared(file)


def test_a_file_without_a_header(tmp_path):
    images(tmp_path)
    for rows in (ROWS, [(text, name) for name, text in ROWS]):
        data = prepared(table(tmp_path / "my.csv", rows, None))
        assert read(data) == sorted(ROWS)
        assert any("has no header" in warning for warning in data.warnings)
    with pytest.raises(UserError, match="has no header"):
        prepared(table(tmp_path / "three.csv", [(*row, "x") for row in ROWS], None))


def test_paths_however_they_are_written(tmp_path):
    images(tmp_path)
    odd = [
        "images/0.jpg",
        "./images/1.jpg",
        "images\\2.jpg",
        str(tmp_path / "images" / "3.jpg"),
        " images/4.jpg ",
        "images//./5.jpg",
    ]
    file = table(tmp_path / "tables" / "my.csv", [(path, "a thing") for path in odd * 2])
    data = prepared(file, root=tmp_path)
    data.check()
    assert read(data) == sorted([(name, "a thing") for name in NAMES[:6]] * 2)
    with pytest.raises(UserError, match="not on disk"):
        prepared(file)


def test_an_old_encoding_is_read_and_told(tmp_path):
    images(tmp_path)
    rows = [(name, "a café — with “quotes”") for name in NAMES]
    data = prepared(table(tmp_path / "my.csv", rows, encoding="cp1252"))
    assert read(data) == sorted(rows)
    assert "is not UTF-8: read as cp1252" in data.warnings[0]
    latin = [(name, "na\x81ve") for name in NAMES]
    data = prepared(table(tmp_path / "latin.csv", latin, encoding="latin-1"))
    assert read(data) == sorted(latin)
    assert "read as latin-1" in data.warnings[0]


@pytest.mark.parametrize("content", [b"", b" \n\n", b"\xff\xfe", b"\xef\xbb\xbf"])
def test_an_empty_file(tmp_path, content):
    (tmp_path / "my.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"is empty\. Give it a row"):
        prepared(tmp_path / "my.csv")


@pytest.mark.parametrize(
    "content",
    [
        b"image,caption\na.jpg,\0\n",
        "image,caption".encode("utf-16-le"),
        b"\xff\xfea\0b",
        b"\x89PNG\0",
    ],
)
def test_what_is_no_text(tmp_path, content):
    (tmp_path / "my.csv").write_bytes(content)
    with pytest.raises(UserError, match="is not text"):
        prepared(tmp_path / "my.csv")


def test_faulty_rows_are_listed_by_line_and_none_is_left_out(tmp_path):
    images(tmp_path)
    text = (
        "image,caption,split\n"
        "images/0.jpg,fine,train\n"
        "images/1.jpg,,train\n"
        "images/2.jpg,  ,train\n"
        ",no path,train\n"
        '"images/3.jpg","two\nlines",train\n'
        "images/4.jpg,a comma, unquoted,train\n"
        "images/5.jpg,short\n"
        "https://example.org/a.jpg,far away,train\n"
        "images/6.jpg,which,holdout\n"
        "images/0.jpg,again,test\n"
        "\n"
        "images/7.jpg,,\n"
    )
    (tmp_path / "my.csv").write_text(text)
    with pytest.raises(
        UserError, match=r"9 rows of .*my\.csv are faulty, first my\.csv:8"
    ) as refusal:
        prepared(tmp_path / "my.csv")
    assert refusal.value.details == [
        "my.csv:8: 4 cells, not 3",
        "my.csv:9: 2 cells, not 3",
        "my.csv:3: no caption of images/1.jpg",
        "my.csv:4: no caption of images/2.jpg",
        "my.csv:5: no path",
        "my.csv:10: https://example.org/a.jpg is not a file; download it first",
        "my.csv:11: split 'holdout' is none of train, val, test and test_<name>",
        "my.csv:12: images/0.jpg is in test, and in train above",
        "my.csv:14: no caption of images/7.jpg",
    ]


def test_faulty_json_lines(tmp_path):
    images(tmp_path)
    text = '{"image": "images/0.jpg", "caption": "a"}\n["b"]\n{"image": \n'
    text += '{"image": "images/1.jpg"}\n{"image": "images/2.jpg", "caption": []}\n'
    text += '{"image": 7, "caption": "c"}\n{"image": "images/3.jpg", "caption": 3}\n'
    (tmp_path / "my.jsonl").write_text(text)
    with pytest.raises(UserError, match="6 rows") as refusal:
        prepared(tmp_path / "my.jsonl")
    found = [detail.split(":")[1] for detail in refusal.value.details]
    assert sorted(found) == ["2", "3", "4", "5", "6", "7"]


def test_quotes_that_do_not_close(tmp_path):
    images(tmp_path)
    rows = [f'{name}{{}}"he" said {i}\n' for i, name in enumerate(NAMES)]
    (tmp_path / "my.csv").write_text("image,caption\n" + "".join(rows).format(*[","] * 12))
    with pytest.raises(UserError, match=r"my\.csv:2: .*Close the quotes"):
        prepared(tmp_path / "my.csv")
    (tmp_path / "my.tsv").write_text("image\tcaption\n" + "".join(rows).format(*["\t"] * 12))
    data = prepared(tmp_path / "my.tsv")
    assert read(data) == sorted((name, f'"he" said {i}') for i, name in enumerate(NAMES))
    assert "quotes that do not close" in data.warnings[0]
    (tmp_path / "open.csv").write_text('image,caption\nimages/0.jpg,"a\nimages/1.jpg,b\n')
    with pytest.raises(UserError, match=r"open\.csv:2: unexpected end of data\. Close the quotes"):
        prepared(tmp_path / "open.csv")


def test_what_is_odd_is_told_and_kept(tmp_path):
    images(tmp_path, [f"{i}.jpg" for i in range(10)])
    rows = [(f"{i}.jpg", f"thing {i}") for i in range(10)]
    rows += [("3.jpg", f"more {k}") for k in range(11)] + [("5.jpg", "thing 5")] * 2
    rows += [("7.jpg", "two\nlines"), ("8.jpg", "word " * 76), ("8.jpg", "many words " * 500)]
    data = prepared(table(tmp_path / "my.csv", rows))
    assert read(data) == sorted(rows)
    file = "my.csv: "
    assert data.warnings == [
        file + "2 captions occur twice at their image, first at 5.jpg; kept",
        file + "images have 1 to 12 captions",
        file + "1 captions go over several lines",
        "2 captions have more than 77 tokens, up to 1,002: a CLIP reads the first 77",
    ]


def test_the_token_count_is_open_clips():
    """A caption is told exactly if open_clip's tokenizer cuts words off it."""
    long, short = open_clip.SimpleTokenizer(context_length=400), open_clip.SimpleTokenizer()
    texts = ["dog " * n for n in (74, 75, 76)] + [
        "é" * 70,
        "1" * 75,
        "1" * 76,
        "x",
        "猫" * 40,
        "." * 90,
    ]
    for text in texts:
        cut = int((long(text) != 0).sum()) > int((short(text) != 0).sum())
        assert bool(too_long([text])) == cut, text


def test_one_caption_for_most_images_is_told(tmp_path):
    images(tmp_path, [f"{i}.jpg" for i in range(12)])
    same = [(f"{i}.jpg", "a product") for i in range(12)]
    (said,) = prepared(table(tmp_path / "same.csv", same)).warnings
    assert said.startswith("same.csv: 12 of 12 images have the caption 'a product'")
    half = [(name, text if i % 2 else f"thing {i}") for i, (name, text) in enumerate(same)]
    assert prepared(table(tmp_path / "half.csv", half)).warnings == []


@pytest.mark.parametrize("name", ["my.json", "my.parquet", "captions", "my.csv.gz"])
def test_what_kind_of_file_it_is(tmp_path, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=r"is none of \.csv \.tsv"):
        prepared(tmp_path / name)


def test_what_is_not_given(tmp_path):
    with pytest.raises(UserError, match=r"dataset\.file is not set"):
        CaptionsDataModule()
    with pytest.raises(UserError, match="No such file"):
        prepared(tmp_path / "my.csv")
    images(tmp_path)
    file = table(tmp_path / "my.csv", ROWS)
    with pytest.raises(UserError, match=r"dataset\.test_fraction=1: not between"):
        prepared(file, test_fraction=1)
    with pytest.raises(UserError, match="too few images"):
        prepared(table(tmp_path / "two.csv", ROWS[:2]))
    with pytest.raises(UserError, match="has no rows"):
        prepared(table(tmp_path / "none.csv", []))


@real_photos
def test_real_captions_from_kaggles_file():
    """Row for row the captions of the official file, in splits of our own."""
    data = prepared(REAL / "captions.txt", root=REAL / "Flicker8k_Dataset")
    data.check()
    official = [
        line.rstrip("\n").split("\t")
        for line in (REAL / "Flickr8k_text" / "Flickr8k.token.txt").open(encoding="utf-8")
    ]
    assert read(data) == sorted((name[:-2], text) for name, text in official)
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 768,
        "val": 192,
        "test": 240,
    }


def test_excels_first_line_says_what_divides_cells(tmp_path):
    images(tmp_path)
    file = table(tmp_path / "c.csv", ROWS, delimiter=";", lineterminator="\n")
    file.write_text("sep=;\n" + file.read_text())
    assert read(prepared(file)) == sorted(ROWS)
    whole = file.read_text()
    file.write_text(whole + "just one cell\n")
    line = len(whole.split("\n"))
    with pytest.raises(UserError, match=rf"c\.csv:{line}: 1 cells, not 2"):
        prepared(file)


def test_the_index_column_of_a_data_frame_is_no_split(tmp_path):
    images(tmp_path)
    frame = pd.DataFrame(ROWS, columns=["image", "caption"])
    frame.to_csv(tmp_path / "c.csv")
    data = prepared(tmp_path / "c.csv")
    assert read(data) == sorted(ROWS)
    assert list(data.splits) == ["train", "val", "test"]


@pytest.mark.parametrize("number", [1, 2])
def test_too_few_images_to_divide(tmp_path, number):
    images(tmp_path)
    with pytest.raises(UserError, match="too few images to share"):
        prepared(table(tmp_path / "c.csv", [(name, "a cat") for name in NAMES[:number]]))


@pytest.mark.parametrize("disk", ["NFC", "NFD"])
@pytest.mark.parametrize("written", ["NFC", "NFD"])
def test_a_file_is_found_whichever_way_its_name_is_written(tmp_path, disk, written):
    names = [f"é/ü{i}.jpg" for i in range(6)]
    images(tmp_path, [unicodedata.normalize(disk, name) for name in names])
    rows = [(unicodedata.normalize(written, name), "a cat") for name in names]
    data = prepared(table(tmp_path / "c.csv", rows))
    ids = sorted(i for split in data.splits.values() for i in split.ids)
    assert ids == [unicodedata.normalize("NFC", name) for name in names]
    assert all(path.is_file() for split in data.splits.values() for path in split.images)
