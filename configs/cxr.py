"""Real chest films in COCO format, from scratch, on a small machine: tiny backbone with group norm at 256 px.

    D="--config.data.train.annotations=DIR/instances.json --config.data.train.images=DIR/images"
    python train.py --config=configs/cxr.py --workdir=runs/cxr $D
    python -m relnet_jax.ablate --config=configs/cxr.py --runs=base,part,ours --folds=4 --out=runs/table $D

Written for the 65 films of covid-19-chest-xray-segmentations-dataset (General Blockchain, CC BY 4.0 annotations): a
fifth of the patients is held out for validation. `cxr`, the run that is meant where none is named, learns every class
of the file; the others of RUNS learn two findings, and compare relations between these and the anatomy, which is
annotated in the same file. docs/measured.md has the numbers as measured.

With films of one's own: data.classes, data.parts (the names of the file) and data.split.by (a field of its records).
"""
from ml_collections import ConfigDict

from configs import base, coco
from configs._runs import Run, use, with_relations

# The lungs are the rows that relations look at by default. One film has a pneumothorax, which is too few.
FINDINGS = {'data.classes': ('Ground Glass Opacities', 'Consolidation'),
            'data.parts': ('Airways', 'Cardiomediastinum', 'Left Lung', 'Right Lung')}
RUNS = {'cxr': Run('', 'every class of the file', {}, {}), **with_relations('two findings', FINDINGS)}


def get_config(run: str = 'cxr') -> ConfigDict:
    """Raises ValueError with the nearest right name of a run."""
    c = base.get_config()
    coco.small(c)
    c.data.split.by = 'patientid'
    c.data.flip_pairs = (('Left Lung', 'Right Lung'),)
    c.data.max_objects = 40
    c.data.scale_jitter = (0.7, 1.0)
    c.data.brightness = 0.1
    c.data.contrast = 0.3
    c.data.gamma = 0.3
    c.model.anchor_sizes = (16, 32, 64, 112, 176)
    c.train.steps = 2400
    c.train.ema = 0.998
    c.train.rois = 64
    use(c, RUNS, run)
    return c
