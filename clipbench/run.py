"""One run, or with -m a sweep.

Run: python -m clipbench.run model=clip_tiny dataset=shapes
     python -m clipbench.run -m model=clip_vitb32,resnet50 dataset=flowers102
"""

import os
import signal
import sys

import hydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from clipbench.core import paths
from clipbench.core.config import overrides, schema

HELP = """clipbench: fine-tune CLIP, or the ResNet we know?

one run     python -m clipbench.run model=clip_vitb32 dataset=flowers102
a sweep     python -m clipbench.run -m model=clip_vitb32,resnet50 dataset=flowers102 lr=1e-5,1e-4
the config  python -m clipbench.run dataset=flowers102 --cfg job

== Options of each group: group=option ==
{options}
== Keys to set or sweep: key=value ==
{keys}

--cfg job shows the whole config, --hydra-help Hydra's own flags."""


def main() -> None:
    """Compose the config, run its jobs, exit non-zero if any job failed."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        # Hydra would look for groups in every option: more than a second of CPU.
        print(HELP.format(options=paths.options(), keys=schema.listing()))
        return
    paths.register()
    schema.register()
    # Hydra's handler shortens tracebacks and exits; errors in a config are explained below.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    # Imported here: --help must not pay for it.
    from clipbench.core.errors import UserError
    from clipbench.sweeps.launcher import stop
    from clipbench.sweeps.session import Session

    session, words = Session(), sys.argv[1:]
    try:
        stop.install()
        sys.argv[1:] = overrides.read(words)
    except UserError as refused:
        print(f"error: {refused}", file=sys.stderr)
        sys.exit(1)
    entry = hydra.main(config_path=str(paths.CONF), config_name="config", version_base="1.3")
    try:
        entry(session)()
        code = session.close()
    except KeyboardInterrupt:
        print("interrupted: the same command again runs what is left", file=sys.stderr)
        session.close()
        sys.exit(128 + (stop.signal or signal.SIGINT))
    except (HydraException, OmegaConfBaseException) as error:
        from clipbench.core import cli

        cli.config_error(error, words)
        sys.exit(2)
    except (OSError, UserError) as error:  # a disk that is full or not writable
        print(f"error: {error}; the same command again runs what is left", file=sys.stderr)
        code = 1
    sys.exit(code)


if __name__ == "__main__":
    main()
