"""Train a detector.

    python train.py                                             the phantom, in runs/phantom
    python train.py --config=configs/cxr.py --workdir=runs/cxr --config.train.steps=100

Start it again with the same --workdir, and it goes on where it was. Several machines: set JAX_COORDINATOR_ADDRESS
(host:port), NUM_PROCESSES and PROCESS_ID in each process, and give all the same --workdir on a shared disk.
"""
import os
import sys
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from relnet_jax.config import parse_flags, short_errors

with short_errors():
    CONFIG = config_flags.DEFINE_config_file('config', str(Path(__file__).parent / 'configs' / 'phantom.py'),
                                             'Config file, path.py or path.py:argument; --config.a.b=c overrides a key')
WORKDIR = flags.DEFINE_string('workdir', '', 'Folder for checkpoints and metrics; runs/NAME_OF_CONFIG by default.')


def main(_):
    if os.environ.get('JAX_COORDINATOR_ADDRESS'):
        jax.distributed.initialize(num_processes=int(os.environ['NUM_PROCESSES']),
                                   process_id=int(os.environ['PROCESS_ID']))
    from relnet_jax.training.loop import train  # after the processes know each other
    config = CONFIG.value
    workdir = WORKDIR.value or str(Path('runs') / config.name)
    logging.info('config %s, folder %s', config.name, workdir)
    train(config, workdir)


if __name__ == '__main__':
    logging.set_verbosity(logging.INFO)
    try:
        app.run(main, flags_parser=parse_flags)
    except FileNotFoundError as error:
        sys.exit(f'train.py: {error}')
