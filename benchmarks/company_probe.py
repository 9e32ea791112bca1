"""What a detector knows of the company of a finding, and makes of it: python -m benchmarks.company_probe RUN [RUN ...]

On the phantom an effusion anywhere in the image tells an atelectasis from a mass. For runs with a relation head this
takes the RoI that fits each of these findings best and measures how well the two are told apart (area under the ROC
curve, 0.5 = not at all) by the logits of both passes, and by a linear probe (ridge regression on the findings of one
half of the images, measured on the other) of what enters and leaves each relation. A probe far above the logits says
that the information is there and that the predictor has not learned to read it. `--pair` names two other classes.
"""
import argparse

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.class_ceiling import IOU, overlaps
from relnet_jax.data import pipeline
from relnet_jax.data.phantom.labels import BY_COMPANY
from relnet_jax.data.source import Source, subset
from relnet_jax.detector.relation_weights import watch
from relnet_jax.detector.run import build_model
from relnet_jax.runs import checkpoint, startup

RIDGE = 300.0       # of the probe, on features of unit variance


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Chance that a positive scores above a negative; ties count half. scores [n], positive bool [n], both present."""
    a, b = scores[positive][:, None], scores[~positive][None]
    return float((a > b).mean() + 0.5 * (a == b).mean())


def probe(features: np.ndarray, positive: np.ndarray) -> float:
    """AUC of a ridge regression on the first half of `features` [n, E], measured on the second."""
    half = len(features) // 2       # not every other row: findings of one image stand together
    x = (features - features[:half].mean(0)) / (features[:half].std(0) + 1e-6)
    train, target = x[:half], 2.0 * positive[:half] - 1
    weights = np.linalg.solve(train.T @ train + RIDGE * np.eye(x.shape[1]), train.T @ target)
    return auc(x[half:] @ weights, positive[half:])


def make_spy(model):
    """Jitted (params, batch) -> name -> [B, N, E]: RoI boxes, logits of each pass, what goes through the relations."""
    def run(params, batch):
        seen = {}

        def relation(path, module, context, out):
            seen['boxes'] = context.boxes
            if isinstance(out, jax.Array):
                seen[f'{path}: output'] = out

        def predictor(path, features, out):
            seen[f'{path}: input'], seen[f'{path}: logits'] = features, out[0]

        with watch(relation, predictor):
            model.apply({'params': params}, batch.image, batch.image_size, batch.part_boxes, batch.part_valid,
                        method='detect')
        return seen
    return jax.jit(run)


def collect(run: str, images: int, pair: list[str]) -> tuple[dict[str, np.ndarray], np.ndarray, list[int]]:
    """(name -> [n, E] at the best RoI of each finding, bool [n] which are of the first class, labels of the pair)."""
    config = checkpoint.read_config(run)
    with config.unlocked():
        config.data.phantom.val_images = images
    source = pipeline.open_sources(config)[1]
    labels = [source.classes.index(name) + 1 for name in pair]
    found: dict[int, list] = {}
    for annotation in source.ground_truth()['annotations']:
        if annotation['category_id'] in labels:
            found.setdefault(annotation['image_id'], []).append(annotation)
    spy = make_spy(build_model(config, checkpoint.read_class_table(run)))
    params = jax.device_put(checkpoint.load_params(run))
    rows, positive = {}, []
    for annotations, batch in batches_with(source, found, config):
        seen = jax.device_get(spy(params, batch))
        x1, y1, x2, y2 = seen.pop('boxes')[0].T
        for annotation in annotations:
            iou = overlaps(annotation['bbox'], np.stack([x1, y1, x2 - x1, y2 - y1], 1))
            if iou.max() >= IOU:
                for name, values in seen.items():
                    rows.setdefault(name, []).append(values[0, iou.argmax()])
                positive.append(annotation['category_id'] == labels[0])
    return {name: np.array(values, float) for name, values in rows.items()}, np.array(positive), labels


def batches_with(source: Source, found: dict[int, list], config):
    """Pairs (annotations, Batch of their image) for the images in `found`."""
    kept = [i for i, record in enumerate(source.records) if record['id'] in found]
    batches = pipeline.eval_batches(subset(source, kept, name=source.name), config, 1)
    for i, batch in zip(kept, batches, strict=True):
        yield found[source.records[i]['id']], batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('runs', nargs='+', help='folders of runs with a relation head, trained on the phantom')
    parser.add_argument('--images', type=int, default=3000)
    parser.add_argument('--pair', nargs=2, default=BY_COMPANY[:2], help='names of two classes')
    options = parser.parse_args()
    startup.use_compilation_cache()
    for run in options.runs:
        features, positive, (first, second) = collect(run, options.images, options.pair)
        if not features:
            raise SystemExit(f'{run}: no relation head, or no RoI found {options.pair[0]} or {options.pair[1]}')
        title = f'{run}: {options.pair[0]} ({positive.sum()}) against {options.pair[1]} ({(~positive).sum()})'
        table = Table('', 'width', 'AUC', title=title, title_justify='left')
        for name, x in features.items():
            logits = name.endswith('logits')
            value = auc(x[:, first] - x[:, second], positive) if logits else probe(x, positive)
            shown = (name, '') if logits else (f'{name}, linear probe', str(x.shape[1]))
            table.add_row(*shown, f'{value:.3f}')
        Console(width=100).print(table)


if __name__ == '__main__':
    main()
