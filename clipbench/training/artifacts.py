"""After training: every split at the chosen epoch and along the alphas, and the files of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from clipbench.core import distributed
from clipbench.datamodules.base_captions import CaptionDataModule
from clipbench.inference import saved_model
from clipbench.models.weight_averaging import State
from clipbench.reporting.page import retrieval_examples
from clipbench.reporting.tables import alpha_figures
from clipbench.training import predictions
from clipbench.training.evaluation import Evaluator, calibrated, chosen_epoch, copied
from clipbench.training.robustness.wise_ft import Merge, alpha_curve


@dataclass
class Finish:
    """What is done with the weights of the chosen epoch, which the module holds.

    Attributes:
        evaluate: with the outputs of val at the chosen epoch, if they are known.
        folder: the run's.
        record: of the run; its ``curve``, ``selection``, ``key`` and ``seed`` are read, and what
            is found out is written into it.
        merge: which averages to evaluate, if any.
        ends: weights before training, and after the last epoch if the chosen one is the start: the
            line would else be a point.
        before: of captions, the outputs of val before training, for the page of examples.
    """

    evaluate: Evaluator
    folder: Path
    record: dict[str, Any]
    merge: Merge | None = None
    ends: tuple[State, State | None] | None = None
    before: Mapping[str, Tensor] | None = None

    def __call__(self) -> None:
        """Evaluate, write the files, fill in the record."""
        record, evaluate = self.record, self.evaluate
        if "val" in evaluate.outputs:
            epoch = record["selection"]["epoch"]
            chosen = next(row for row in record["curve"] if row["epoch"] == epoch)
        else:
            chosen = evaluate(["val"])
        final = {k: v for k, v in chosen.items() if k.startswith("val/")}
        tuned = copied(evaluate.module.classifier) if self.merge else {}
        final |= chosen_epoch(evaluate)
        record["final"] = final
        if not isinstance(evaluate.data, CaptionDataModule):
            record["temperature"], scaled = calibrated(evaluate.data, evaluate.outputs)
            record["final"] |= scaled
            if distributed.here.first:
                predictions.write(self.folder, evaluate.data, evaluate.outputs)
        elif distributed.here.first:
            predictions.write_ranks(self.folder, evaluate.data, evaluate.outputs)
            self._examples(evaluate.data)
        self._save("model")
        if self.merge is not None and self.ends is not None:
            start, last = self.ends
            self._alphas(self.merge, (start, last or tuned))

    def _examples(self, data: CaptionDataModule) -> None:
        """A page of queries of val, before training and after, if anything was trained."""
        record, after = self.record, self.evaluate.outputs["val"]
        if self.before is None or not record["selection"]["epoch"]:
            return
        found = [(state["image"], state["text"]) for state in (self.before, after)]
        title = f"{record['model']} on {record['dataset']}, {record['strategy']}: val"
        path = self.folder / "examples.html"
        retrieval_examples.write(path, data.splits["val"], *found, seed=record["seed"], title=title)

    def _alphas(self, merge: Merge, ends: tuple[State, State]) -> None:
        record, metric = self.record, self.record["selection"]["metric"]
        curve = alpha_curve(self.evaluate, merge, ends, metric, record["seed"])
        record["final"] |= curve.final()
        record["alpha_curve"] = curve.rows
        record["selection"]["alpha"] = curve.alpha
        self.evaluate.module.classifier.load_state_dict(dict(curve.weights))
        self._save("merged")
        if distributed.here.first:
            if not isinstance(self.evaluate.data, CaptionDataModule):
                data, outputs = self.evaluate.data, curve.outputs
                predictions.write_merged(self.folder, data, outputs, curve.alpha)
            alpha_figures.alpha_curve(record, self.folder / "alpha_curve.png")

    def _save(self, stem: str) -> None:
        if not distributed.here.first:
            return
        classifier, classes = self.evaluate.module.classifier, self.evaluate.data.classes
        about = {"clipbench": self.record["key"]}
        saved_model.save(self.folder, classifier, list(classes), about, stem)
