import pandas as pd

from clipbench.results import frames


def test_an_axis_without_a_value_is_a_value_of_its_own():
    columns = {axis: "x" for axis in frames.AXES} | {"key": "k", "seed": [0, 1, 0, 1]}
    runs = pd.DataFrame(
        {**columns, "shots": [None, None, 4.0, 4.0], "test/acc": [1.0, 3.0, 5.0, 7.0]}
    )
    assert frames.varying(runs) == ["shots", "seed"]
    assert frames.seedless(runs) == ["shots"]
    means = frames.means(runs, ["shots"], ["test/acc"])
    assert means["n"].tolist() == [2, 2]
    assert means["test/acc"].tolist() == [2.0, 6.0]
