"""Write phantom images as files: python -m relnet_jax.data.phantom --out=phantom --count=20"""
import argparse
import json
from pathlib import Path

import cv2

from relnet_jax.data.phantom import coco_dict, render


def main() -> None:
    parser = argparse.ArgumentParser(description='Write synthetic chest radiographs and their truth (COCO).')
    parser.add_argument('--out', type=Path, required=True, help='folder to write to')
    parser.add_argument('--count', type=int, default=20)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--ambiguity', type=float, default=0.5)
    parser.add_argument('--size', type=int, default=512)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    truth = coco_dict(options.seed, range(options.count), size=options.size)
    for record in truth['images']:
        image, _ = render(options.seed, record['id'], ambiguity=options.ambiguity, size=options.size)
        cv2.imwrite(str(options.out / record['file_name']), image)
    (options.out / 'instances.json').write_text(json.dumps(truth))
    print(f"{options.count} images with {len(truth['annotations'])} findings in {options.out}")


if __name__ == '__main__':
    main()
