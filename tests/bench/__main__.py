"""``make bench``: every module beside this one, each a table under the outputs root's ``bench/``.

A module has ``TITLE`` and ``run() -> pandas.DataFrame``; a new one is found by itself.
"""

import importlib
import sys
from pathlib import Path

from clipbench.core import paths

HERE = Path(__file__).parent


def main(names):
    folder = paths.outputs() / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or sorted(path.stem for path in HERE.glob("[!_]*.py")):
        module = importlib.import_module(f"{__package__}.{name}")
        print(f"{module.TITLE}", flush=True)
        table = module.run().to_markdown(index=False, disable_numparse=True)
        (folder / f"{name}.md").write_text(f"# {module.TITLE}\n\n{table}\n")
        print(f"{table}\n{folder / name}.md\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
