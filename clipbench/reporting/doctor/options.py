"""From a config back to the words that make it: which option a node is, what its own file has."""

from clipbench.core.config.option_files import Node, files, option
from clipbench.reporting.tables import costs
from clipbench.strategies import about


def words(group: str, node: Node, into: str) -> str | None:
    """Return the overrides that make a node of a group again, under another key of the root.

    Args:
        group: whose options the node is of.
        node: of a resolved config.
        into: the key, such as ``mix``.
    """
    name = option(group, node)
    if name is None:
        return None
    own = files(group)[name]
    scalars = {
        k: v for k, v in own.items() if isinstance(v, str | int | float) and "$" not in str(v)
    }
    changed = [f"{into}.{k}={node[k]}" for k, v in scalars.items() if k in node and node[k] != v]
    return " ".join((f"{into}={name}", *changed))


def pretrained(model: Node) -> str:
    """Return the override that gives a model pretrained weights which fit its architecture."""
    name = option("model", model)
    tag = files("model")[name].get("pretrained") if name else None
    return f"model.pretrained={tag or 'FILE'}"


def half(model: Node) -> str:
    """Return the override that freezes half of a model's blocks, or two where nobody counted."""
    sizes = costs.facts(option("model", model) or "")
    return f"freeze_depth={int(sizes['blocks']) // 2 if sizes else 2}"


def own_keys(strategy: Node, symptom: str) -> tuple[str, ...]:
    """Return the overrides of a run's own strategy against a symptom that it has not set yet."""
    keys = about.of(strategy).remedies.get(symptom) or {}
    return tuple(_word(k, v) for k, v in keys.items() if strategy.get(k, v) != v)


def by_strategy(strategy: Node, symptom: str) -> tuple[str, ...]:
    """Return what strategies say against a symptom: the run's own, or else each of the others."""
    if about.of(strategy).remedies.get(symptom) is not None:
        return (" ".join(own_keys(strategy, symptom)),) if own_keys(strategy, symptom) else ()
    return tuple(
        " ".join((f"strategy={name}", *(_word(k, v) for k, v in keys.items())))
        for name, known in about.every().items()
        if (keys := known.remedies.get(symptom)) is not None
    )


def _word(key: str, value: str | float) -> str:
    return f"strategy.{key}={str(value).lower() if isinstance(value, bool) else value}"
