"""How well the anatomy head finds the anatomical parts of a data source."""
import jax
import jax.numpy as jnp
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from relnet_jax.data import pipeline
from relnet_jax.detector.devices import over_devices
from relnet_jax.detector.run import build_model, rows_of
from relnet_jax.models.anatomy_head import PRESENT
from relnet_jax.ops.boxes import pairwise_iou


def make_find_parts(config, class_table: dict):
    """Function (params, image uint8 [B, H, W, 3], image_size float32 [B, 2], true part boxes [B, P, 4]) -> (IoU of each
    part's box with its true one, probability that the part is there), both [B, P]; `over_devices` of this process."""
    parts = len(class_table['parts'])
    model = build_model(config, class_table)

    def find(params, image, image_size, truth):
        boxes, presence = model.apply({'params': params}, image, image_size, parts, method='parts')
        return jnp.diagonal(pairwise_iou(boxes, truth), axis1=-2, axis2=-1), presence
    return over_devices(find, jax.local_devices())


def part_metrics(find_fn, params, source, config) -> dict:
    """Part name -> dict(images: how many show it, iou: mean IoU there, found: share of them in which it was said to be
    there, invented: share of the other annotated images in which it was said to be there). NaN where none is.

    Images without a single annotated part count for nothing.
    """
    ious, said, there = [], [], []
    for batch in pipeline.eval_batches(source, config, rows_of(len(source), config.test.batch_size)):
        iou, presence = jax.device_get(find_fn(params, batch.image, batch.image_size, batch.part_boxes))
        annotated = batch.image_valid & batch.part_valid.any(1)
        ious.append(iou[annotated])
        said.append(presence[annotated] > PRESENT)
        there.append(batch.part_valid[annotated])
    ious, said, there = map(np.concatenate, (ious, said, there))

    def mean(values, where):
        return float(values[where].mean()) if where.any() else float('nan')
    return {name: dict(images=int(there[:, i].sum()), iou=mean(ious[:, i], there[:, i]),
                       found=mean(said[:, i], there[:, i]), invented=mean(said[:, i], ~there[:, i]))
            for i, name in enumerate(source.parts)}


def mean_iou(metrics: dict) -> float:
    """Over all parts that are there, every box counting the same; NaN without any."""
    count = sum(part['images'] for part in metrics.values())
    return sum(p['iou'] * p['images'] for p in metrics.values() if p['images']) / count if count else float('nan')


def print_parts(metrics: dict, *, title: str, console: Console | None = None) -> None:
    """A row per part, on the screen or `console`."""
    table = Table('part', title=title, title_justify='left', box=box.SIMPLE_HEAD)
    for column in ('images', 'mean IoU', 'found', 'invented'):
        table.add_column(column, justify='right')
    for name, part in metrics.items():
        table.add_row(name, str(part['images']), *(f'{part[key]:.3f}' for key in ('iou', 'found', 'invented')))
    table.add_section()
    table.add_row('all', str(sum(part['images'] for part in metrics.values())), f'{mean_iou(metrics):.3f}', '', '',
                  style='bold')
    (console or Console()).print(table)
