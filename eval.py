"""Evaluate a checkpoint: `python eval.py --help` says how."""
import sys

from relnet_jax.eval import main

if __name__ == '__main__':
    sys.exit(main())
