"""Pin anew what a change moved on purpose; look at the diff before it is committed."""

import json
import os
import tempfile
from pathlib import Path

from clipbench.core import paths
from clipbench.core.config import schema
from tests.conftest import FEW, TINY, clipbench, result_jsons
from tests.pins.test_pins import HERE, keys, shape
from tests.test_run import run_here


def write(name: str, content: dict) -> None:
    (HERE / name).write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    paths.register()
    schema.register()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CLIPBENCH_OUTPUTS"] = folder
        write("keys.json", keys(Path(folder) / "data"))
        squashed = (*TINY, "lr=1e-2", "dataset.resize_mode=squash")
        for model, words in (("clip_tiny", ("model=clip_tiny",)), ("timm", squashed)):
            run_here(*words, *FEW, model=model)
        for _, record in result_jsons(Path(folder)):
            write(f"record_{record['model']}.json", shape(record))
    (HERE / "help.txt").write_text(clipbench("--help").stdout)
