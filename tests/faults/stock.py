"""Lightning's own checkpoints in place of ours: what the campaign must be seen to fail on.

Read by sitecustomize.py where $CLIPBENCH_STOCK is set. Lightning's ``ModelCheckpoint`` writes as
Lightning writes, ``Trainer.fit`` goes on from its last, and nobody tells the sampler where that is.
"""


def install():
    """Take the product's ways out."""
    from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
    from pytorch_lightning.callbacks import ModelCheckpoint

    from clipbench.loading.samplers import KeyedSampler
    from clipbench.training import build, checkpoint_io, resume, trainer

    def checkpoints(folder, key, started, every_steps, begin):
        where = folder / "checkpoints" / "stock"
        return ModelCheckpoint(where, save_last=True, every_n_train_steps=every_steps)

    def prepare(folder, key, identity, requested):
        last = folder / "checkpoints" / "stock" / "last.ckpt"
        if not last.is_file():
            resume._empty(folder)
            return None
        kept = checkpoint_io.read(last)
        return resume.ResumePoint(key, kept["global_step"], kept["epoch"], 0, False, 0.0)

    trainer.AtomicCheckpointIO = TorchCheckpointIO
    build.Resume, resume.prepare = checkpoints, prepare
    resume.ResumePoint.path = lambda self, folder: folder / "checkpoints" / "stock" / "last.ckpt"
    KeyedSampler.begin = lambda self, epoch, row: None
