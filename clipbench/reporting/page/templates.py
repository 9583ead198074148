"""The HTML templates in ``assets``, which escape every value."""

import jinja2

from clipbench.core import paths


def render(name: str, **values: object) -> str:
    """Return a template with its values filled in."""
    loader = jinja2.FileSystemLoader(paths.ASSETS)
    template = jinja2.Environment(loader=loader, autoescape=True).get_template(name)
    return template.render(**values)
