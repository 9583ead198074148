"""The overrides that make a node of a config, and those that an option's own file suggests."""

from clipbench.core.config.option_files import Node, files, option
from clipbench.reporting.tables import costs
from clipbench.strategies import about


def words(group: str, node: Node, into: str) -> str | None:
    """Return the overrides that make a node of a group again, under another key such as ``mix``."""
    name = option(group, node)
    if name is None:
        return None
    changed = [
        f"{into}.{key}={node[key]}"
        for key, value in files(group)[name].items()
        if isinstance(value, str | int | float) and "$" not in str(value)
        if key in node and node[key] != value
    ]
    return " ".join((f"{into}={name}", *changed))


def pretrained(model: Node) -> str:
    """Return the override that gives a model pretrained weights which fit its architecture."""
    name = option("model", model)
    tag = files("model")[name].get("pretrained") if name else None
    return f"model.pretrained={tag or 'FILE'}"


def half(model: Node) -> str:
    """Return the override that freezes half of a model's blocks, or two if nobody counted them."""
    sizes = costs.facts(option("model", model) or "")
    return f"freeze_depth={int(sizes['blocks']) // 2 if sizes else 2}"


def own_keys(strategy: Node, symptom: str) -> tuple[str, ...]:
    """Return the overrides of a run's own strategy against a symptom that it has not set yet."""
    keys = about.of(strategy).remedies.get(symptom) or {}
    return tuple(_word(k, v) for k, v in keys.items() if strategy.get(k, v) != v)


def by_strategy(strategy: Node, symptom: str) -> tuple[str, ...]:
    """Return what strategies say against a symptom: the run's own, or else each of the others."""
    if about.of(strategy).remedies.get(symptom) is not None:
        return tuple(filter(None, [" ".join(own_keys(strategy, symptom))]))
    return tuple(
        " ".join((f"strategy={name}", *(_word(k, v) for k, v in keys.items())))
        for name, facts in about.every().items()
        if (keys := facts.remedies.get(symptom)) is not None
    )


def _word(key: str, value: str | float) -> str:
    return f"strategy.{key}={str(value).lower() if isinstance(value, bool) else value}"
