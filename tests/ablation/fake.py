"""Made-up results and runs for the tests of tables, figures and documents."""
import copy

from relnet_jax.ablation.table import LabRun

TEXTS = {'original': LabRun('plain, C4', 'A', '25.96', '40.19'), 'zero': LabRun('class relation | scratch', 'A'),
         'base': LabRun('plain, FPN', 'F'), 'fpn_5': LabRun('class relation', 'E', '', '47.06'),
         'fpn_6': LabRun('part relation', 'E'), 'extra': LabRun('not in the log', '')}
SETTINGS = {'model.neck': 'fpn', 'model.relations': [], 'test.boxes': 200, 'train.steps': 600}
ABOUT = dict(data_set='phantom (val)', images=100, images_without_findings=20, objects=170, synthetic=True,
             post_processing=dict(proposals=200, score_threshold=0.05, nms_iou=0.5, detections_per_image=50,
                                  mask_threshold=0.5, coordinates='pixels of the original image',
                                  voc_convention='pixel_inclusive'))


def result(run: str, seed: int, ap50: float | None, **changes) -> dict:
    """The content of a result file; metrics other than box AP50 are shares of it."""
    share = {'box_AP': 0.5, 'box_AP50': 1.0, 'mask_AP50': 0.9, 'voc_AP_0.01': 1.2, 'voc_AP_0.50': 0.8}
    metrics = {m: None if ap50 is None else ap50 * s for m, s in share.items()}
    delta = {} if run == 'base' else {'model.relations': [run]}
    if run in ('original', 'zero'):
        delta['model.neck'] = 'c4'
    found = dict(
        run=run, seed=seed, data='phantom', overrides=['train.steps=600'], settings=dict(SETTINGS), delta=delta,
        config_hash=f'hash of {run}', steps=600, metrics=metrics, per_class_AP50={'Mass': ap50, 'Nodule': None},
        boxes={'200': metrics}, about=copy.deepcopy(ABOUT), seconds=100.0, resumed_at_step=0,
        machine=dict(processor='a processor', cores=2, devices='1 x cpu', system='Linux', python='3.11', jax='0.10',
                     flax='0.12', optax='0.2', numpy='2.4', relnet_jax='0.1'),
        date='2026-01-02 03:04 UTC', command='python -m relnet_jax.ablate --runs=base --out=x')
    return found | changes


def three_seeds() -> list[dict]:
    """base 40, 44, 42 and fpn_5 45, 50, 46 per cent: differences 5, 6, 4."""
    values = {'base': (0.40, 0.44, 0.42), 'fpn_5': (0.45, 0.50, 0.46)}
    return [result(run, seed, ap) for run, aps in values.items() for seed, ap in enumerate(aps)]


def lines_of(text: str, run: str) -> list[list[str]]:
    """The cells of the lines of a Markdown table that begin with this run."""
    return [[cell.strip() for cell in line.split(' | ')] for line in text.splitlines()
            if line.startswith(f'| `{run}` |')]
