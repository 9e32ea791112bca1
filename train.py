"""Train a detector: `python train.py --help` says how."""
import sys

from relnet_jax.train import main

if __name__ == '__main__':
    sys.exit(main())
