"""The prompts of each class: its name in templates, or its captions from a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from clipbench.core import paths, text_values
from clipbench.core.errors import UserError

USES = ("ensemble", "one", "sampled")


def fill(template: str, name: str) -> str:
    """Return a template filled with the class name (``{}``) or with article and name (``{a}``).

    With its article a name has spaces for underscores, as in WiSE-FT.
    """
    article = "an" if name[:1].lower() in tuple("aeiou") else "a"
    words = name.replace("_", " ")
    return template.replace("{a}", f"{article} {words}").replace("{}", name)


class Prompts:
    """The prompts of every class.

    Args:
        templates: strings with one ``{}`` each, ``openai`` for the 80 of CLIP's ImageNet
            evaluation (openai/CLIP, notebooks/Prompt_Engineering_for_ImageNet), or None for the
            dataset's own.
        file: a caption bank in place of templates: YAML or JSON, a list of captions by class, or
            CSV of columns class and caption. A class is called by its name or by its key.
        use: ``ensemble`` is the mean over a class's prompts, ``one`` takes the first, ``sampled``
            lets a strategy that reads text in each step draw one there.
    """

    def __init__(
        self,
        *,
        templates: Sequence[str] | str | None = None,
        file: str | None = None,
        use: str = "ensemble",
    ) -> None:
        if use not in USES:
            raise UserError(f"prompts.use={use}: unknown. Use one of {', '.join(USES)}")
        if templates == "openai":
            from open_clip import OPENAI_IMAGENET_TEMPLATES

            templates = [template("{}") for template in OPENAI_IMAGENET_TEMPLATES]
        elif isinstance(templates, str):
            templates = [templates]
        self.templates, self.file, self.use = templates, file, use

    def of(
        self, classes: Sequence[str], templates: Sequence[str], keys: Sequence[str] | None = None
    ) -> list[list[str]]:
        """Return the prompts of each class, at least one.

        ``templates`` are the dataset's own, ``keys`` its own names of the classes, if any.

        Raises:
            UserError: if a bank cannot be read, or lacks a class.
        """
        if self.file is not None:
            prompts = _from_bank(paths.expanded(self.file), classes, keys or classes)
        else:
            used = list(self.templates or templates)
            prompts = [[fill(template, name) for template in used] for name in classes]
        return [texts[:1] for texts in prompts] if self.use == "one" else prompts


def _from_bank(path: Path, classes: Sequence[str], keys: Sequence[str]) -> list[list[str]]:
    try:
        if path.suffix.lower() == ".csv":
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
            bank: Any = table.groupby("class", sort=False)["caption"].apply(list).to_dict()
        else:
            bank = text_values.read(path)
    except Exception as error:
        raise UserError(f"prompts.file={path} cannot be read ({error}). Fix it") from error
    if not isinstance(bank, Mapping):
        raise UserError(f"prompts.file={path} is not a mapping from class to captions. Make it one")
    listed = {str(k): [v] if isinstance(v, str) else list(v or ()) for k, v in bank.items()}
    captions = {k: [str(text) for text in v if str(text).strip()] for k, v in listed.items()}
    pairs = list(zip(classes, keys, strict=True))
    if lacking := [name for name, key in pairs if not (captions.get(name) or captions.get(key))]:
        raise UserError(
            f"prompts.file={path} has no caption of {len(lacking)} classes, first {lacking[0]}. "
            "Add them",
            [f"{name}: no caption" for name in lacking],
        )
    return [captions.get(name) or captions[key] for name, key in pairs]
