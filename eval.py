"""Evaluate a checkpoint: python eval.py --ckpt=RUN [--out=DIR] [--split=val|train] [--config.test.boxes=64 ...]

RUN is a run's folder, its checkpoints folder, one step folder, or RUN/best. The config is the checkpoint's own; any key
can be overridden, for example the data: --config.data.val.annotations=FILE --config.data.val.images=FOLDER.
--boxes=1000,512,256,128,64 evaluates at each of these numbers of test boxes instead, and prints one table.
"""
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from relnet_jax.config import parse_flags, short_errors
from relnet_jax.evaluation import evaluate
from relnet_jax.evaluation.voc import CONVENTIONS
from relnet_jax.runs import checkpoint


def box_counts(text: str) -> list:
    """'1000,512' -> [1000, 512]. Raises UsageError for anything but positive whole numbers, each once."""
    parts = text.split(',')
    counts = [int(part) for part in parts if part.strip().isdigit()]
    if len(counts) != len(parts) or len(set(counts)) != len(counts) or min(counts) < 1:
        raise app.UsageError(f"--boxes: expected different positive numbers separated by commas, got '{text}'")
    return counts


def checkpoint_of(argv: list) -> str:
    """The value of --ckpt, read ahead of the other flags because it decides which config keys they may override."""
    for argument, following in zip(argv, argv[1:] + ['']):
        name, given, value = argument.lstrip('-').partition('=')
        if argument.startswith('-') and name == 'ckpt':
            return value if given else following
    return ''


def main(argv: list) -> None:
    flags.DEFINE_string('ckpt', None, 'run folder, its checkpoints folder, one step folder, or RUN/best', required=True)
    flags.DEFINE_string('out', '', 'folder to write to; default: eval/ in the run folder')
    flags.DEFINE_string('boxes', '', 'evaluate at each of these numbers of test boxes, such as 1000,512,64, in one table')
    flags.DEFINE_enum('split', 'val', ['val', 'train'], 'which images')
    flags.DEFINE_integer('overlays', 8, 'number of images drawn, truth beside prediction', lower_bound=0)
    flags.DEFINE_enum('voc_boxes', 'pixel_inclusive', sorted(CONVENTIONS), 'widths of VOC-style AP: x2 - x1 (+ 1)')
    if ckpt := checkpoint_of(argv):
        with short_errors():
            config_flags.DEFINE_config_dict('config', checkpoint.read_config(ckpt))

    def run(_) -> None:
        f = flags.FLAGS
        logging.set_verbosity(logging.INFO)
        if f.boxes:
            evaluate.sweep_boxes(f.ckpt, f.config, box_counts(f.boxes), out=f.out, split=f.split, convention=f.voc_boxes)
        else:
            evaluate.evaluate_checkpoint(f.ckpt, f.config, out=f.out, split=f.split, num_overlays=f.overlays,
                                convention=f.voc_boxes)
    app.run(run, argv=argv, flags_parser=parse_flags)


if __name__ == '__main__':
    try:
        main(sys.argv)
    except (checkpoint.CheckpointError, FileNotFoundError) as error:
        sys.exit(f'eval.py: {error}')
