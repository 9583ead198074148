"""Every table through pdflatex: ``make test-latex``, for a LaTeX is no part of an install."""

import shutil
import subprocess

import pytest

from clipbench import tables
from tests.test_tables import NASTY, typeset

HEAD = r"""\documentclass[a4paper]{article}
\usepackage[utf8]{inputenc}\usepackage[T1]{fontenc}\usepackage{booktabs}
\begin{document}\extrafloats{200}
"""

pytestmark = pytest.mark.slow


def compiled(folder, body):
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex; apt-get install texlive-latex-recommended")
    (folder / "all.tex").write_text(f"{HEAD}{body}\\end{{document}}\n")
    run = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(run, cwd=folder, capture_output=True, check=False)
    log = (folder / "all.log").read_text(errors="replace")
    assert done.returncode == 0, log[-3000:]
    assert "Missing character" not in log
    assert (folder / "all.pdf").stat().st_size > 5_000
    return log


def test_every_table_of_the_project_compiles(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPBENCH_OUTPUTS", str(tmp_path))
    assert tables.make(["results=frozen"]) == 0
    files = sorted((tmp_path / "tables").glob("*.tex"))
    assert len(files) > 80
    parts = [f"\\input{{tables/{file.name}}}\n\\clearpage\n" for file in files]
    compiled(tmp_path, "".join(parts))


def test_every_name_compiles(tmp_path):
    compiled(tmp_path, typeset.as_latex(["name", "bold"], [[n, typeset.Bold(n)] for n in NASTY]))
