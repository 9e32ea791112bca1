"""Train a detector.

    python train.py                                             the phantom, in runs/phantom
    python train.py --config=configs/cxr.py --workdir=runs/cxr --config.train.steps=100

Installed, the command is relnet-train. Start it again with the same --workdir, and it goes on where it was; stopped by
SIGTERM or Ctrl-C it saves first, and the exit code is 75. Several machines: set JAX_COORDINATOR_ADDRESS (host:port),
NUM_PROCESSES and PROCESS_ID in each process, and give all the same --workdir on a shared disk.
"""
import os
import sys
from pathlib import Path

from absl import logging
from absl.flags import FlagValues

from relnet_jax import cli
from relnet_jax.errors import UserError


def define(values: FlagValues) -> None:
    cli.define_config(values, 'phantom')
    cli.define_path(values, 'workdir', '', 'folder for checkpoints and metrics; without it runs/NAME_OF_CONFIG',
                    kind='folder')


def join_processes() -> None:
    """Makes this one of several processes, if the environment says so. Raises UserError for half of what it takes."""
    address = os.environ.get('JAX_COORDINATOR_ADDRESS')
    if not address:
        return
    import jax
    try:
        count, own = (int(os.environ[name]) for name in ('NUM_PROCESSES', 'PROCESS_ID'))
    except (KeyError, ValueError) as error:
        raise UserError('JAX_COORDINATOR_ADDRESS is set: expected NUM_PROCESSES and PROCESS_ID as numbers beside it, '
                        f'got {error}') from error
    jax.distributed.initialize(address, num_processes=count, process_id=own)


def command(call: cli.Call) -> int:
    config = cli.config_of(call)
    workdir = Path(call.flags.workdir or Path('runs') / config.name).absolute()
    join_processes()
    from relnet_jax.training import loop, phases  # after the processes know each other
    steps = phases.total_steps(config)      # first of all, for what it says of wrong phases
    logging.info('config %s; working in %s, the run in %s', config.name, Path.cwd(), workdir)
    state = loop.train(config, workdir)
    return cli.DONE if state.step >= steps else cli.STOPPED


def main(argv: list[str] | None = None) -> int:
    return cli.run('train', __doc__, define, command, argv)


if __name__ == '__main__':
    sys.exit(main())
