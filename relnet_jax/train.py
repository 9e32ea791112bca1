"""Train a detector.

    python train.py                                             the phantom, in runs/phantom
    python train.py --config=configs/cxr.py --workdir=runs/cxr --config.train.steps=100

Installed, the command is relnet-train. The same command with the same --workdir resumes a run. Stopped by
SIGTERM or Ctrl-C it saves first, and the exit code is 75. All GPUs of a machine are used. Several processes work as one
with the same --workdir on a shared disk and --coordinator, or with the variables JAX_COORDINATOR_ADDRESS, NUM_PROCESSES
and PROCESS_ID (docs/scaling.md).
"""
import sys
from pathlib import Path

from absl import logging
from absl.flags import FlagValues

from relnet_jax import cli


def define(values: FlagValues) -> None:
    cli.define_config(values, 'phantom')
    cli.define_path(values, 'workdir', '', 'folder for checkpoints and metrics; without it runs/NAME_OF_CONFIG',
                    kind='folder')
    cli.define_processes(values)


def command(call: cli.Call) -> int:
    config = cli.config_of(call)
    workdir = Path(call.flags.workdir or Path('runs') / config.name).absolute()
    from relnet_jax import processes  # what brings JAX along comes after what may be wrong with the flags
    processes.join(call.flags.coordinator, call.flags.num_processes, call.flags.process_id, stop_together=True)
    from relnet_jax.training import loop, phases, story
    steps = phases.total_steps(config)      # first of all, for what it says of wrong phases
    logging.info('config %s; the run is in %s (working in %s)', config.name, story.shown(workdir), Path.cwd())
    state = loop.train(config, workdir)
    if state.step < steps:
        return cli.STOPPED
    if processes.is_first():
        for line in story.ending(workdir):
            logging.info('%s', line)
    return cli.DONE


def main(argv: list[str] | None = None) -> int:
    code = cli.run('train', __doc__, define, command, argv)
    if code in (cli.DONE, cli.STOPPED):
        return code
    from relnet_jax import processes
    return processes.leave(code)


if __name__ == '__main__':
    sys.exit(main())
