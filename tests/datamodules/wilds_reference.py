"""What the ``wilds`` package says of a folder and of predictions, as JSON.

In a process of its own, since importing wilds asks PyPI for its newest version in a thread and
lifts Pillow's limit on decompression bombs for the whole process.

Run: python wilds_reference.py fmow|iwildcam FOLDER-ABOVE, predictions by split as JSON on stdin
"""

import functools
import json
import subprocess
import sys
import types
from pathlib import Path


def ask(name, above, predictions):
    """Per split files, labels, groups and results; and what the class itself says."""
    done = subprocess.run(
        [sys.executable, __file__, name, str(above)],
        input=json.dumps(predictions),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def scatter(src, index, dim_size, reduce):
    """The one call that wilds makes of torch_scatter, which is not on PyPI but as source."""
    import torch

    assert reduce == "mean"
    sums = torch.zeros(dim_size).index_add_(0, index, src)
    return sums / torch.bincount(index, minlength=dim_size).clamp(min=1)


def files(dataset, positions):
    if hasattr(dataset, "full_idxs"):
        return [f"images/rgb_img_{dataset.full_idxs[i]}.png" for i in positions]
    return [f"train/{dataset._input_array[i]}" for i in positions]


def groups(dataset, metadata):
    found = {}
    for field in ("region", "year", "location"):
        if field in dataset.metadata_fields:
            ids = metadata[:, dataset.metadata_fields.index(field)].tolist()
            names = (dataset.metadata_map or {}).get(field)
            found[field] = [str(names[i]) if names else i for i in ids]
    return found


def main(name, above, predictions):
    import pandas as pd
    import torch

    sys.modules["outdated"] = None  # what phones PyPI
    sys.modules["torch_scatter"] = types.SimpleNamespace(scatter=scatter)
    # Without a format pandas 2 and later refuse a column of both kinds of stamps (wilds #146).
    pd.to_datetime = functools.partial(pd.to_datetime, format="ISO8601")
    from wilds.datasets import fmow_dataset, iwildcam_dataset

    known = {"fmow": fmow_dataset.FMoWDataset, "iwildcam": iwildcam_dataset.IWildCamDataset}
    dataset = known[name](root_dir=above)
    said = {
        "folder": Path(dataset.data_dir).name,
        "release": dataset._versions_dict[dataset.version],
        "classes": dataset.n_classes,
        "categories": getattr(fmow_dataset, "categories", None),
        "splits": {},
    }
    for split in dataset.split_dict:
        subset = dataset.get_subset(split)
        predicted = torch.tensor(predictions[split])
        results, _ = dataset.eval(predicted, subset.y_array, subset.metadata_array)
        said["splits"][split] = {
            "files": files(dataset, subset.indices.tolist()),
            "labels": subset.y_array.tolist(),
            "groups": groups(dataset, subset.metadata_array),
            "results": results,
        }
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.load(sys.stdin))
