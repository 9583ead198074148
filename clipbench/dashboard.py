"""TensorBoard over the outputs root.

Run: python -m clipbench.dashboard [TensorBoard's own flags, such as --port 6007]
"""

import sys

from clipbench import paths


def main() -> None:
    """Serve the runs until interrupted."""
    from tensorboard import program

    board = program.TensorBoard()
    board.configure(argv=[None, "--logdir", str(paths.outputs() / "runs"), *sys.argv[1:]])
    sys.exit(board.main())


if __name__ == "__main__":
    main()
