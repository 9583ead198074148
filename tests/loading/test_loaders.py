from types import SimpleNamespace

import pytest

from clipbench.core.errors import UserError
from clipbench.datamodules.imagefolder import ImageFolderDataModule
from clipbench.loading import loaders
from tests.datamodules.folders import AUGMENT, TINY, class_folders


@pytest.fixture
def data(tmp_path):
    class_folders(tmp_path, ["cat", "dog"], 5)
    data = ImageFolderDataModule(root=tmp_path, workers=2)
    data.prepare(0)
    data.attach(preprocess=TINY, augment=AUGMENT, batch_size=4, seed=0)
    return data


@pytest.mark.parametrize("lacking", [0, 1])
def test_workers_whose_batches_do_not_fit_into_shared_memory(data, monkeypatch, lacking):
    batches = 2 * 2 * 4 * 3 * 16 * 16 * 4  # of each of two workers two, float32
    usage = SimpleNamespace(free=batches - lacking)
    monkeypatch.setattr(loaders.shutil, "disk_usage", lambda _: usage)
    for make in (data.train_dataloader, data.val_dataloader):
        if not lacking:
            assert make().num_workers == 2
            continue
        with pytest.raises(UserError, match=r"dataset\.workers=2: .*--shm-size") as refusal:
            make()
        assert "\n" not in str(refusal.value)
    data.workers = 0
    assert next(iter(data.train_dataloader()))["image"].shape == (4, 3, 16, 16)
