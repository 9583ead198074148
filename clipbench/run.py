"""The door: one run, or with -m a sweep.

Run: python -m clipbench.run model=clip_tiny dataset=shapes
     python -m clipbench.run -m model=clip_vitb32,resnet50 dataset=flowers102
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from clipbench import paths, schema

if TYPE_CHECKING:
    from clipbench.launch import Outcome

HELP = """clipbench: fine-tune CLIP, or the ResNet we know?

one run     python -m clipbench.run model=clip_vitb32 dataset=flowers102
a sweep     python -m clipbench.run -m model=clip_vitb32,resnet50 dataset=flowers102 lr=1e-5,1e-4
the config  python -m clipbench.run dataset=flowers102 --cfg job

== Options of each group: group=option ==
{options}
== Keys to set or sweep: key=value ==
lr batch_size micro_batch epochs steps freeze_depth text_freeze_depth seed warmup warmup_steps
weight_decay layer_decay ema label_smoothing head_lr_factor grad_checkpointing alphas
merge merge_bn retention=DATASET retention_every_epoch mix=DATASET mix_fraction mix_weight
monitor patience keep=all
allow_unfinished_warmup gate dataset.root dataset.shots dataset.workers model.pretrained
model.image_size trainer.devices trainer.precision

--cfg job shows the whole config, --hydra-help Hydra's own flags."""

CODES = {"completed": 0, "interrupted": 130}


class Session:
    """What one command has done so far: its outcomes, and the sweep's folder if it is one."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.sweep: Path | None = None

    def run(self, config: DictConfig) -> None:
        """Run one job in a process of its own and say how it ended."""
        # Imported here: --help and --cfg job must not pay for it.
        from clipbench.launch import Job, launch

        hydra_config = HydraConfig.get()
        resolved: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        choices: dict[str, Any] = dict(hydra_config.runtime.choices)
        overrides = list(hydra_config.overrides.task)
        if hydra_config.mode == RunMode.MULTIRUN:
            self.sweep = Path(hydra_config.sweep.dir)
            print(f"\n[{len(self.outcomes) + 1}] {' '.join(overrides)}", flush=True)
        outcome = launch(Job(config=resolved, choices=choices, overrides=overrides))
        self.outcomes.append(outcome)
        self._note(outcome, overrides)
        if outcome.status == "interrupted":
            raise KeyboardInterrupt

    def _note(self, outcome: "Outcome", overrides: list[str]) -> None:
        from clipbench import closing

        closing.job(outcome)
        if self.sweep is not None:
            line: dict[str, Any] = {"key": outcome.key, "status": outcome.status}
            line |= {"folder": outcome.folder, "error": outcome.error, "overrides": overrides}
            with (self.sweep / "jobs.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")

    def close(self) -> int:
        """After the last job: the sweep's table, and the exit code of the worst job."""
        if self.sweep is not None:
            from clipbench import tables

            for path in tables.sweep(self.sweep):
                print(path)
        return max((CODES.get(outcome.status, 1) for outcome in self.outcomes), default=0)


def main() -> None:
    """Compose the config, run what it asks for, exit non-zero if any job failed."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        # Hydra would look for groups in every option: more than a second of CPU.
        print(HELP.format(options=paths.options()))
        return
    paths.register()
    schema.register()
    # Hydra's own handler cuts tracebacks and exits; errors in a config are explained below.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    session = Session()
    entry = hydra.main(config_path=str(paths.CONF), config_name="config", version_base="1.3")
    try:
        entry(session.run)()
    except KeyboardInterrupt:
        print("interrupted: the same command again runs what is left", file=sys.stderr)
        session.close()
        sys.exit(130)
    except (HydraException, OmegaConfBaseException) as error:
        from clipbench import closing

        closing.config_error(error, sys.argv[1:])
        sys.exit(2)
    sys.exit(session.close())


if __name__ == "__main__":
    main()
