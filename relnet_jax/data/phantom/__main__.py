"""Write phantom images as files: python -m relnet_jax.data.phantom --out=phantom --count=20

Installed, the command is relnet-phantom. OUT gets PNG files and their truth as instances.json (COCO).
"""
import sys
from pathlib import Path

import cv2
from absl import flags
from absl.flags import FlagValues

from relnet_jax import cli, files
from relnet_jax.data.phantom import coco_dict, render


def define(values: FlagValues) -> None:
    cli.define_path(values, 'out', None, 'folder to write to', kind='folder')
    flags.DEFINE_integer('count', 20, 'number of images', lower_bound=1, flag_values=values)
    flags.DEFINE_integer('seed', 0, 'of the images', lower_bound=0, flag_values=values)
    flags.DEFINE_float('ambiguity', 0.5, 'share of findings that look like others', lower_bound=0, upper_bound=1,
                       flag_values=values)
    flags.DEFINE_integer('size', 512, 'pixels per side', lower_bound=32, upper_bound=1 << 15, flag_values=values)


def command(call: cli.Call) -> None:
    f, out = call.flags, Path(call.flags.out)
    out.mkdir(parents=True, exist_ok=True)
    truth = coco_dict(f.seed, range(f.count), size=f.size)
    for record in truth['images']:
        image, _ = render(f.seed, record['id'], ambiguity=f.ambiguity, size=f.size)
        cv2.imwrite(str(out / record['file_name']), image)
    files.write_json(out / 'instances.json', truth, indent=None)
    print(f"{f.count} images with {len(truth['annotations'])} findings in {out}")


def main(argv: list[str] | None = None) -> int:
    return cli.run('phantom', __doc__, define, command, argv, overrides=False)


if __name__ == '__main__':
    sys.exit(main())
