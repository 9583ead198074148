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


class FineTuningModule(LightningModule):
    """Trains a classifier with its strategy's loss and evaluates any split with the same step.

    Args:
        classifier: as the strategy prepared it.
        strategy: gives the loss and the parameter groups.
        recipe: the numbers to train with.
        schedule: learning rate by optimiser step.
        measure: the metrics of a split, given its name and what the module collected of it.
        weights: of each class in the loss, (C,), or None.

    Attributes:
        split: which split the next evaluation is of; names its metrics.
        outputs: what the last evaluation was measured from.
        rows: how many pictures that were.
        owners: of an output with other rows than pictures, which one tells whose each is.
        values: its metrics, ``<split>/<metric>``.
        watch: what else is measured with each evaluation, such as what is remembered of another
            dataset; given the classifier, it returns further ``values``.
        mixed: the loss of a batch's ``mixed``, where pictures of another dataset are mixed in.
        mixup: what mixes the pictures of a batch with each other, and their labels, given the step.
        seed: of the run; with the step and the rank it decides what dropout drops.
        last_step: to end after, though it be in the midst of an epoch.
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
        self.measure = measure
        self.split = "val"
        self.outputs: dict[str, Tensor] = {}
        self.rows = 0
        self.values: dict[str, float] = {}
        self.watch: Callable[[Classifier], dict[str, float]] | None = None
        self._watched: dict[str, float] = {}
        self.mixed: Callable[[Classifier, Batch], Tensor] | None = None
        self.mixup: Callable[[Batch, int], Batch] | None = None
        self.seed = 0
        self.last_step: int | None = None
        self.skipped = 0
        self._collected: list[dict[str, Tensor]] = []
        self._micro_batch: int | None = recipe.micro_batch
        strategy.micro_batch = self._micro_batch

    @abstractmethod
    def look(self, batch: Batch) -> dict[str, Tensor]:
        """What the metrics of a split need of a batch, by row; its ``index`` among it."""

    @abstractmethod
    def measured(self) -> dict[str, float]:
        """The metrics of a split, from :attr:`outputs`."""

    def __getstate__(self) -> dict[str, Any]:
        """For the copy that an average of the weights is kept in: without the data."""
        return {**super().__getstate__(), "measure": None, "watch": None, "mixed": None}

    def train(self, mode: bool = True) -> "FineTuningModule":
        """Train mode, but for the running statistics of frozen blocks."""
        super().train(mode)
        freeze_statistics(self.classifier, everywhere=self.strategy.frozen_statistics)
        return self

    def on_train_start(self) -> None:
        """For a run that goes on in the midst of an epoch, whose start Lightning does not tell."""
        self.on_train_epoch_start()

    def on_train_epoch_start(self) -> None:
        """Lightning trains modules in whatever mode they come; some libraries leave eval mode."""
        self.strategy.begin_epoch(self.classifier, self.current_epoch)
        self.train()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The strategy's loss of a batch: cross-entropy, unless it has another.

        With ``micro_batch`` the gradient is collected part by part. All parts but the last are
        carried back here, the last by the Trainer; each counts by its rows, so that the sum is the
        gradient of the whole batch. (Not so with BatchNorm in training: it normalises each part
        by itself.)

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
        """The losses that a batch's is made of, each with its share, to be made one by one."""
        own = {name: column for name, column in batch.items() if name != "mixed"}
        own = own if self.mixup is None else self.mixup(own, self.global_step)
        size, rows = self._micro_batch, len(own["label"])
        for part in gradient_cache.parts(own, None if self.strategy.pairs else size):
            yield len(part["label"]) / rows, partial(self._own_loss, part)
        if self.mixed is not None:
            rows = len(batch["mixed"]["label"])
            for part in gradient_cache.parts(batch["mixed"], size):
                yield len(part["label"]) / rows, partial(self.mixed, self.classifier, part)

    def _own_loss(self, batch: Batch) -> Tensor:
        return self.strategy.loss(
            self.classifier,
            batch,
            smoothing=self.recipe.label_smoothing,
            step=self.global_step,
            weights=self.weights,
        )

    def optimizer_zero_grad(self, *args: Any) -> None:
        """Nothing: this comes after :meth:`training_step`, which starts from none itself."""

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Evaluate after the last of a number of steps, though it be in the midst of an epoch."""
        self.trainer.should_stop |= self.global_step in (self.trainer.max_steps, self.last_step)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Stop before a step that would spread a gradient that is not finite."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.get_total_norm([g for g in gradients if g is not None])
        if torch.isfinite(norm):
            return
        # float16 holds no more than 65,504: the scaler takes no step then, and lowers its scale.
        # A gradient that is not finite at a scale of 1 is no matter of float16.
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is None or scaler.get_scale() <= 1:
            raise self._diverged("gradient")
        self.skipped += 1

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep how many steps were skipped, for a run that goes on."""
        if self.skipped:
            checkpoint["skipped"] = self.skipped

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting from there."""
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
        self._collected.append({name: found.cpu() for name, found in self.look(batch).items()})

    def on_validation_epoch_end(self) -> None:
        """The metrics of the split, over every picture once, by every rank of all ranks' rows."""
        own = {
            name: torch.cat([part[name] for part in self._collected]) for name in self._collected[0]
        }
        self._collected.clear()
        self.outputs = {
            name: distributed.whole(rows, own[self.owners.get(name, "index")])
            for name, rows in own.items()
        }
        self.rows = len(self.outputs["index"])
        for name, found in self.outputs.items():
            if not torch.isfinite(found).all():
                cause = f"the model gives {name} that are not finite on {self.split}"
                raise UserError(f"{cause}; try lr={self.recipe.lr / 10:g}", status="diverged")
        self.values = {f"{self.split}/{k}": v for k, v in self.measured().items()} | self._watched
        # For callbacks that monitor; the recorder writes the loggers, by epoch.
        self.log_dict(self.values, logger=False)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The recipe's optimiser over the strategy's groups, on the run's schedule."""
        optimizer = schedule.optimizer(
            self.strategy.param_groups(self.classifier, self.recipe),
            name=self.recipe.optimizer,
            betas=(self.recipe.betas[0], self.recipe.betas[1]),
            eps=self.recipe.eps,
            momentum=self.recipe.momentum,
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule.factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


class ClassificationModule(FineTuningModule):
    """Of a classifier of pictures: its outputs are logits (n, C) and labels (n,).

    ``measure`` is given a split's name and both.
    """

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, C) of a batch of pictures, or of features computed before."""
        return logits(self.classifier, batch)

    def look(self, batch: Batch) -> dict[str, Tensor]:
        """Logits and labels."""
        return {name: batch[name] for name in ("index", "label")} | {"logits": self(batch).float()}

    def measured(self) -> dict[str, float]:
        """Those of the dataset."""
        assert self.measure is not None
        return self.measure(self.split, self.outputs["logits"], self.outputs["label"])


class RetrievalModule(FineTuningModule):
    """Of two towers that find pictures by text, and texts by picture.

    Its outputs are normalised features: ``image`` (n, D), and ``text`` (m, D) of every caption,
    picture by picture. ``<split>/loss`` is the CLIP loss of each picture with the first of its
    captions, in the split's order and in batches of the run's size: it compares with
    ``train/loss``, and between runs of one batch size.

    ``measure`` is given a split's name and both features.
    """

    owners: Mapping[str, str] = {"text": "owner", "owner": "owner"}

    def __init__(self, classifier: Classifier, *others: Any) -> None:
        super().__init__(classifier, *others)
        self.tokens = Tokens(classifier.tower.tokenizer())

    def look(self, batch: Batch) -> dict[str, Tensor]:
        """Features of the pictures and of all their captions, and whose each caption is."""
        captions: Sequence[Sequence[str]] = batch["captions"]
        image = F.normalize(features(self.classifier, batch).float(), dim=-1)
        text = self._texts([text for own in captions for text in own], len(image))
        owner = batch["index"].cpu().repeat_interleave(torch.tensor([len(own) for own in captions]))
        first = torch.tensor([number(own[0]) for own in captions])
        return {
            **{"image": image, "text": text},
            **{"index": batch["index"], "owner": owner, "first": first},
        }

    def _texts(self, texts: Sequence[str], rows: int) -> Tensor:
        """Normalised features (m, D) of texts, as many at a time as there are pictures."""
        tower = two_towers(self.classifier)
        parts = torch.split(self.tokens(texts).to(tower.logit_scale.device), rows)
        return torch.cat([F.normalize(tower.encode_text(p).float(), dim=-1) for p in parts])

    def measured(self) -> dict[str, float]:
        """The loss, and those of the dataset."""
        assert self.measure is not None
        image, text = self.outputs["image"], self.outputs["text"]
        return {"loss": self._whole_loss(image, text), **self.measure(self.split, image, text)}

    def _whole_loss(self, image: Tensor, text: Tensor) -> float:
        """The mean over pictures, of batches as one rank would have trained them."""
        index, first = self.outputs["index"], self.outputs["first"]
        text = text[torch.searchsorted(self.outputs["owner"], index)]
        scale = two_towers(self.classifier).logit_scale.exp().float().cpu()
        total = 0.0
        for rows in torch.split(torch.arange(len(index)), self.recipe.batch_size):
            alike = same(first[rows].tolist(), across=False)
            loss = clip_loss(image[rows], text[rows], scale, alike, across=False)
            total += len(rows) * float(loss)
        return total / len(index)
