"""Evaluate a checkpoint: python eval.py --ckpt=RUN [--out=DIR] [--split=val|train] [--config.test.boxes=64 ...]

Installed, the command is relnet-eval. RUN is a run's folder, its checkpoints folder, one step folder, or RUN/best. The
config is the checkpoint's own; any key can be overridden, for example the data: --config.data.val.annotations=FILE
--config.data.val.images=FOLDER. --boxes=1000,512,256,128,64 evaluates at each of these numbers of test boxes instead,
and prints one table. --calibrate chooses score thresholds for at most --fp_per_film false positives of each class per
film, and a temperature of the scores, on the validation images, and keeps them in the checkpoint (docs/metrics.md).
"""
import sys

from absl import flags
from absl.flags import FlagValues

from relnet_jax import cli, processes
from relnet_jax import config as config_lib
from relnet_jax.errors import UserError
from relnet_jax.evaluation import evaluate
from relnet_jax.evaluation.matching import CONVENTIONS
from relnet_jax.evaluation.submissions import SUBMISSIONS
from relnet_jax.runs import checkpoint, memory


def define(values: FlagValues) -> None:
    cli.define_path(values, 'ckpt', None, 'run folder, its checkpoints folder, one step folder, or RUN/best')
    cli.define_path(values, 'out', '', "folder to write to; without it the run's eval/", kind='folder')
    flags.DEFINE_string('boxes', '', 'evaluate at each of these numbers of test boxes, as 1000,512,64, in one table',
                        flag_values=values)
    flags.DEFINE_enum('split', 'val', ['val', 'train'], 'which images', flag_values=values)
    flags.DEFINE_integer('overlays', 8, 'number of images drawn, truth beside prediction', lower_bound=0,
                         flag_values=values)
    flags.DEFINE_enum('voc_boxes', 'pixel_inclusive', sorted(CONVENTIONS), 'widths of VOC-style AP: x2 - x1 (+ 1)',
                      flag_values=values)
    cli.define_processes(values)
    flags.DEFINE_bool('calibrate', False, 'choose score thresholds for --fp_per_film, and a temperature, on these '
                      'validation images, and keep them in the checkpoint', flag_values=values)
    flags.DEFINE_float('fp_per_film', 0.2, 'false positives of each class per film that --calibrate allows',
                       lower_bound=1e-6, flag_values=values)
    flags.DEFINE_enum('submission', '', ['', *SUBMISSIONS], "write submission.csv too, in a competition's form",
                      flag_values=values)


def command(call: cli.Call) -> None:
    f = call.flags
    boxes = cli.numbers(f.boxes, 'boxes')
    processes.join(f.coordinator, f.num_processes, f.process_id)
    config = config_lib.with_overrides(checkpoint.read_config(f.ckpt), call.overrides)
    for flag in ('submission', 'calibrate'):
        if boxes and f[flag].value:
            raise UserError(f'--{flag}: of one number of boxes, not of --boxes')
    if f.calibrate and f.split != 'val':
        raise UserError('--calibrate: on validation images, not on --split=train, which the detector has seen')
    with memory.told(memory.detection_remedies(config)):
        if boxes:
            evaluate.sweep_boxes(f.ckpt, config, boxes, out=f.out, split=f.split, convention=f.voc_boxes)
        else:
            evaluate.evaluate_checkpoint(f.ckpt, config, out=f.out, split=f.split, num_overlays=f.overlays,
                                         convention=f.voc_boxes, submission=f.submission,
                                         calibrate=f.fp_per_film if f.calibrate else 0.0)


def main(argv: list[str] | None = None) -> int:
    code = cli.run('eval', __doc__, define, command, argv)
    return code if code == cli.DONE else processes.leave(code)


if __name__ == '__main__':
    sys.exit(main())
