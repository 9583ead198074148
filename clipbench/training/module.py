"""The LightningModules of a run: one training step for both, one evaluation for every split."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from clipbench.core import distributed
from clipbench.core.errors import UserError
from clipbench.models.base import Classifier, freeze_statistics
from clipbench.strategies import gradient_cache
from clipbench.strategies.base import Batch, Strategy, features, logits
from clipbench.strategies.clip_loss import clip_loss, number, same
from clipbench.strategies.recipe import Recipe
from clipbench.strategies.text_tower import Tokens, two_towers
from clipbench.training import schedule
from clipbench.training.checkpoint_io import Content


class FineTuningModule(LightningModule):
    """Trains a classifier with its strategy's loss and evaluates any split with the same step.

    Attributes:
        measure: returns the metrics of a split, given its name and its outputs.
        weights: of each class in the loss, (C,), or None.
        split: of the next evaluation; names its metrics.
        outputs: what the last evaluation was measured from.
        rows: how many images that were.
        owners: for an output whose rows are not images, the output that names each row's image.
        values: its metrics, ``<split>/<metric>``.
        watch: returns further ``values`` of the classifier, such as those of another dataset.
        mixed: the loss of a batch's ``mixed``, where images of another dataset are mixed in.
        mixup: mixes the images and labels of a batch, given the step.
        seed: of the run; dropout is seeded by it, the step and the rank.
        last_step: to end after, even inside an epoch.
        skipped: how many steps a gradient scaler has left out, ``trainer.precision=16-mixed``.
    """

    measure: Callable[..., dict[str, float]] | None
    owners: Mapping[str, str] = {}

    def __init__(
        self,
        classifier: Classifier,
        strategy: Strategy,
        recipe: Recipe,
        schedule: schedule.Schedule,
        measure: Callable[..., dict[str, float]],
        weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.classifier, self.strategy = classifier, strategy
        self.recipe, self.schedule, self.weights = recipe, schedule, weights
        self.measure, self.split, self.rows = measure, "val", 0
        self.outputs: dict[str, Tensor] = {}
        self.values: dict[str, float] = {}
        self.watch: Callable[[Classifier], dict[str, float]] | None = None
        self._watched: dict[str, float] = {}
        self.mixed: Callable[[Classifier, Batch], Tensor] | None = None
        self.mixup: Callable[[Batch, int], Batch] | None = None
        self.seed, self.skipped = 0, 0
        self.last_step: int | None = None
        self._collected: list[dict[str, Tensor]] = []
        strategy.micro_batch = recipe.micro_batch

    @abstractmethod
    def look(self, batch: Batch) -> dict[str, Tensor]:
        """Return the rows of a batch that the metrics of its split need, ``index`` included."""

    @abstractmethod
    def measured(self) -> dict[str, float]:
        """Return the metrics of a split, from :attr:`outputs`."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave the data out of the copy that holds the average of the weights."""
        return {**super().__getstate__(), "measure": None, "watch": None, "mixed": None}

    def train(self, mode: bool = True) -> "FineTuningModule":
        """Set train mode, except for the running statistics of frozen blocks."""
        super().train(mode)
        freeze_statistics(self.classifier, everywhere=self.strategy.frozen_statistics)
        return self

    def on_train_start(self) -> None:
        """Start the epoch of a run that resumes inside one, where Lightning skips the hook."""
        self.on_train_epoch_start()

    def on_train_epoch_start(self) -> None:
        """Set train mode, which Lightning leaves as it is; some libraries load in eval mode."""
        self.strategy.begin_epoch(self.classifier, self.current_epoch)
        self.train()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the strategy's loss of a batch.

        With ``micro_batch`` the gradient is accumulated part by part; the Trainer runs the last
        backward pass. Each part is weighted by its rows, so that the sum is the gradient of the
        whole batch, unless BatchNorm is in train mode, which normalises each part by itself.

        Raises:
            UserError: with status ``diverged`` if the loss is not finite.
        """
        self.zero_grad()
        keyed = np.random.SeedSequence([self.seed, self.global_step, distributed.here.rank])
        torch.manual_seed(int(keyed.generate_state(1)[0]))
        whole = torch.zeros(())
        for share, loss in self._losses(batch):
            if whole.requires_grad:
                self.trainer.strategy.backward(whole, None)
            value = loss()
            whole = whole.detach().to(value) + share * value
        if not torch.isfinite(whole):
            raise self._diverged("loss")
        self.log("train/loss_step", whole, logger=False)  # the recorder writes the loggers
        return whole

    def _losses(self, batch: Batch) -> Iterator[tuple[float, Callable[[], Tensor]]]:
        """Yield the parts of a batch's loss: the share of each, and a function that computes it."""
        first = {name: column for name, column in batch.items() if name != "mixed"}
        first = first if self.mixup is None else self.mixup(first, self.global_step)
        size, rows, loss = self.recipe.micro_batch, len(first["label"]), self.strategy.loss
        options: dict[str, Any] = {"smoothing": self.recipe.label_smoothing}
        options |= {"step": self.global_step, "weights": self.weights}
        for part in gradient_cache.parts(first, None if self.strategy.pairs else size):
            yield len(part["label"]) / rows, partial(loss, self.classifier, part, **options)
        if self.mixed is not None:
            rows = len(batch["mixed"]["label"])
            for part in gradient_cache.parts(batch["mixed"], size):
                yield len(part["label"]) / rows, partial(self.mixed, self.classifier, part)

    def optimizer_zero_grad(self, *args: Any) -> None:
        """Do nothing: Lightning calls this after :meth:`training_step`, which does it."""

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """End the epoch, and evaluate, after the last step of the run."""
        self.trainer.should_stop |= self.global_step in (self.trainer.max_steps, self.last_step)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Stop before a step that would spread a gradient that is not finite."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.get_total_norm([g for g in gradients if g is not None])
        if torch.isfinite(norm):
            return
        # float16 holds no more than 65,504: the scaler takes no step then, and lowers its scale.
        # A gradient that is not finite at a scale of 1 has another cause than float16.
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is None or scaler.get_scale() <= 1:
            raise self._diverged("gradient")
        self.skipped += 1

    def on_save_checkpoint(self, checkpoint: Content) -> None:
        """Save how many steps were skipped, for a run that resumes."""
        if self.skipped:
            checkpoint["skipped"] = self.skipped

    def on_load_checkpoint(self, checkpoint: Content) -> None:
        """Restore how many steps were skipped."""
        self.skipped = checkpoint.get("skipped", 0)

    def _diverged(self, what: str) -> UserError:
        lr = self.trainer.optimizers[0].param_groups[0]["lr"]
        cause = f"the {what} is not finite at step {self.global_step} (lr {lr:.3g})"
        return UserError(f"{cause}; try lr={self.recipe.lr / 10:g}", status="diverged")

    def on_validation_epoch_start(self) -> None:
        """Bring a head that follows the text tower up to date."""
        self.strategy.refresh(self.classifier)
        # Here an average of the weights is in its place, if one is kept.
        distributed.same_buffers(self)
        self._watched = {} if self.watch is None else self.watch(self.classifier)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect what the metrics of the whole split need."""
        self._collected.append({name: rows.cpu() for name, rows in self.look(batch).items()})

    def on_validation_epoch_end(self) -> None:
        """Measure the split on the rows of all ranks, each image counted once."""
        parts, self._collected = self._collected, []
        local = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        self.outputs = {
            name: distributed.whole(rows, local[self.owners.get(name, "index")])
            for name, rows in local.items()
        }
        self.rows = len(self.outputs["index"])
        for name, rows in self.outputs.items():
            if not torch.isfinite(rows).all():
                cause = f"the model gives {name} that are not finite on {self.split}"
                raise UserError(f"{cause}; try lr={self.recipe.lr / 10:g}", status="diverged")
        self.values = {f"{self.split}/{k}": v for k, v in self.measured().items()} | self._watched
        # For callbacks that monitor; the recorder writes the loggers, by epoch.
        self.log_dict(self.values, logger=False)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the recipe's optimizer of the strategy's groups, and the schedule."""
        groups = self.strategy.param_groups(self.classifier, self.recipe)
        optimizer = schedule.optimizer(groups, self.recipe)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule.factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


class ClassificationModule(FineTuningModule):
    """Trains a classifier of images; ``measure`` takes a split, logits (n, C) and labels (n,)."""

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (B, C) of a batch of images, or of precomputed features."""
        return logits(self.classifier, batch)

    def look(self, batch: Batch) -> dict[str, Tensor]:
        """Return logits and labels."""
        return {name: batch[name] for name in ("index", "label")} | {"logits": self(batch).float()}

    def measured(self) -> dict[str, float]:
        """Return the dataset's metrics."""
        assert self.measure is not None
        return self.measure(self.split, self.outputs["logits"], self.outputs["label"])


class RetrievalModule(FineTuningModule):
    """Trains two towers that find images by text, and texts by image.

    Its outputs are normalised features: ``image`` (n, D), and ``text`` (m, D) of every caption,
    image by image; ``measure`` takes a split and both. ``<split>/loss`` is the CLIP loss of each
    image with its first caption, in the split's order and in batches of the run's size: it is
    comparable with ``train/loss``, and between runs of the same batch size.
    """

    owners: Mapping[str, str] = {"text": "owner", "owner": "owner"}

    def __init__(self, classifier: Classifier, *others: Any) -> None:
        super().__init__(classifier, *others)
        self.tokens = Tokens(classifier.tower.tokenizer())

    def look(self, batch: Batch) -> dict[str, Tensor]:
        """Return the features of images and of their captions, and each caption's image."""
        captions: Sequence[Sequence[str]] = batch["captions"]
        image = F.normalize(features(self.classifier, batch).float(), dim=-1)
        text = self._texts([text for texts in captions for text in texts], len(image))
        owner = batch["index"].cpu().repeat_interleave(torch.tensor([*map(len, captions)]))
        first = torch.tensor([number(texts[0]) for texts in captions])
        rows = {"index": batch["index"], "owner": owner, "first": first}
        return {"image": image, "text": text, **rows}

    def _texts(self, texts: Sequence[str], rows: int) -> Tensor:
        """Return the normalised features (m, D) of texts, encoded ``rows`` at a time."""
        tower = two_towers(self.classifier)
        parts = torch.split(self.tokens(texts).to(tower.logit_scale.device), rows)
        return torch.cat([F.normalize(tower.encode_text(p).float(), dim=-1) for p in parts])

    def measured(self) -> dict[str, float]:
        """Return the loss, and the dataset's metrics."""
        assert self.measure is not None
        image, text = self.outputs["image"], self.outputs["text"]
        return {"loss": self._whole_loss(image, text), **self.measure(self.split, image, text)}

    def _whole_loss(self, image: Tensor, text: Tensor) -> float:
        """Return the mean loss of an image, in the batches that a single rank would train on."""
        index, first = self.outputs["index"], self.outputs["first"]
        text = text[torch.searchsorted(self.outputs["owner"], index)]
        scale = two_towers(self.classifier).logit_scale.exp().float().cpu()
        total = 0.0
        for rows in torch.split(torch.arange(len(index)), self.recipe.batch_size):
            alike = same(first[rows].tolist(), across=False)
            loss = clip_loss(image[rows], text[rows], scale, alike, across=False)
            total += len(rows) * float(loss)
        return total / len(index)
