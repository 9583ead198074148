"""The page of examples: the rule by which they are chosen, what is marked, and what is escaped."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from markupsafe import escape

from clipbench.loading.split import Split
from clipbench.metrics import retrieval
from clipbench.reporting.page import retrieval_examples

NASTY = "<script>alert(\"1\")</script> & 'quotes' {body}"


class Tags(HTMLParser):
    """Every tag with its attributes, and all text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def world():
    """Thirty pictures of one to three captions; features near each other, then nearer."""
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 4, 30)
    captions = [[f"caption {i}.{k} {NASTY}" for k in range(n)] for i, n in enumerate(counts)]
    pictures = rng.integers(0, 256, (30, 20, 30, 3), dtype=np.uint8)
    ids = [f"{i}'<b>.jpg" for i in range(30)]
    split = Split(ids, np.full(30, -1), pictures, expected=30, captions=captions)
    generator = torch.Generator().manual_seed(0)
    image = F.normalize(torch.randn(30, 8, generator=generator), dim=-1)
    owner = torch.arange(30).repeat_interleave(torch.from_numpy(counts))
    noise = torch.randn(2, len(owner), 8, generator=generator)
    texts = [F.normalize(image[owner] + 0.5 * each, dim=-1) for each in noise]
    return split, (image, texts[0]), (image, texts[1]), owner


def test_the_rule_is_followed():
    before = torch.tensor([10, 10, 4, 1, 1, 7, 7, 100, 2, 1, 5, 5])
    after = torch.tensor([1, 1, 2, 8, 4, 7, 7, 50, 1, 2, 5, 5])
    group = torch.tensor([0, 0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 8])
    found = list(retrieval_examples.chosen(before, after, group, seed=0))
    assert found[:6] == [
        *[("gained most", q) for q in (0, 2, 7)],  # 1 is of the first's group, 8 comes after
        *[("lost most", q) for q in (3, 4, 9)],
    ]
    drawn = [q for why, q in found[6:] if why == "drawn at random"]
    assert len(drawn) == len(found) - 6 == 3  # three groups are left: one query of each
    assert sorted(group[drawn].tolist()) == [4, 6, 8]
    assert list(retrieval_examples.chosen(before, after, group, seed=0)) == found
    same = [why for why, _ in retrieval_examples.chosen(after, after, group, seed=0)]
    assert same == ["drawn at random"] * 4


def test_the_page_shows_ranks_answers_and_what_is_true(world, tmp_path):
    split, before, after, owner = world
    retrieval_examples.write(
        tmp_path / "page.html", split, before, after, seed=1, title=f"t {NASTY}"
    )
    page = (tmp_path / "page.html").read_text()
    sections = re.findall(r"<section>.*?</section>", page, re.DOTALL)
    captions = [caption for own in split.captions for caption in own]
    ranks = [retrieval.ranks(*state, owner) for state in (before, after)]
    shown = list(retrieval_examples.chosen(ranks[0].image, ranks[1].image, owner, 1))
    assert len(shown) == 10
    for (why, query), section in zip(shown, sections, strict=False):
        found = Tags(section)
        text = " ".join(found.text)
        assert why in text
        assert captions[query] in text
        for state, own in zip(("before", "after"), ranks, strict=True):
            assert f"{state}: rank {own.image[query]} of 30" in text
        # what is marked is the caption's own picture, whether it was found or not
        pairs = zip(found.tags, found.tags[1:], strict=False)
        marked = [b["alt"] for (_, a), (_, b) in pairs if a.get("class") == "true" and "alt" in b]
        assert marked == [split.ids[owner[query]]] * 2
        scores = before[0] @ before[1][query]
        best = [split.ids[i] for i in scores.argsort(descending=True)[:5]]
        assert [tag["alt"] for name, tag in found.tags if name == "img"][:5] == best
    for name in ("image_recall@5", "text_median_rank"):
        form = ".4f" if "recall" in name else "g"
        values = [format(own.metrics()[name], form) for own in ranks]
        assert f"<th>{name}</th><td>{values[0]}</td><td>{values[1]}</td>" in page
    worse = sum(map(int.__gt__, ranks[1].image.tolist(), ranks[0].image.tolist()))
    assert f"rank better than before, {worse} worse. Of 30 images" in page


def test_a_picture_marks_its_captions(world, tmp_path):
    split, before, after, _ = world
    retrieval_examples.write(tmp_path / "page.html", split, before, after)
    page = (tmp_path / "page.html").read_text()
    queries = page.split("<h2>From an image to its captions</h2>")[1]
    for section in re.findall(r"<section>.*?</section>", queries, re.DOTALL):
        query = split.ids.index(Tags(section).tags[3][1]["alt"])
        assert all(escape(caption) in section for caption in split.captions[query])
        answers = section.split("</details>")[1]
        assert answers.count("<li") == 10
        for mark, text in re.findall(r"<li( class=true)?>caption (\d+)\.", answers):
            assert bool(mark) == (int(text) == query)
    assert "<li class=true>" in queries


def test_the_page_needs_nothing_else_and_runs_nothing(world, tmp_path):
    split, before, after, _ = world
    for _ in range(2):
        retrieval_examples.write(tmp_path / "page.html", split, before, after, title=NASTY)
    page = (tmp_path / "page.html").read_text()
    found = Tags(page)
    assert "script" not in {name for name, _ in found.tags}
    assert not [tag for tag in found.tags if "href" in tag[1]]
    assert all(
        tag["src"].startswith("data:image/jpeg;base64,") for n, tag in found.tags if n == "img"
    )
    assert "http" not in page
    assert any(NASTY in text for text in found.text)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_split_without_captions(world, tmp_path):
    split, before, after, _ = world
    bare = Split(split.ids, split.labels, split.images, expected=30)
    with pytest.raises(ValueError, match="without captions"):
        retrieval_examples.write(tmp_path / "page.html", bare, before, after)
