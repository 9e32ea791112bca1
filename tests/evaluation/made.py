"""Data sets made by rule for tests of metrics: small films with boxes, and detections of them."""
import numpy as np


def film_set(seed, count, false, *, classes=2):
    """(COCO dict, results) of `count` films: boxes of whole pixels, each found never, once or twice, some pixels off;
    `false` false boxes per film and class on average; every score once."""
    rng = np.random.default_rng(seed)
    truth, results = [], []

    def box():
        x, y, w, h = rng.integers(0, 200, 2).tolist() + rng.integers(20, 60, 2).tolist()
        return [x, y, w, h]
    for image in range(count):
        for category in range(1, classes + 1):
            for _ in range(rng.integers(0, 3)):
                truth.append(dict(image_id=image, category_id=category, bbox=box()))
                for _ in range(rng.integers(0, 3)):
                    moved = (np.array(truth[-1]['bbox']) + rng.integers(-6, 7, 4)).tolist()
                    results.append(dict(image_id=image, category_id=category, bbox=moved))
            for _ in range(rng.poisson(false)):
                results.append(dict(image_id=image, category_id=category, bbox=box()))
    for r, score in zip(results, rng.permutation(len(results)) + 1):
        r['score'] = float(score) / (len(results) + 1)
    return coco(truth, images=count, classes=[str(c) for c in range(1, classes + 1)]), results


def coco(annotations, *, images, classes=('a',), **record):
    """A COCO dict of images 0, 1, ... with `record` in each, and classes 1, 2, ..."""
    return dict(images=[dict(id=i, **record) for i in range(images)],
                annotations=[dict(dict(id=n, iscrowd=0, area=a['bbox'][2] * a['bbox'][3]), **a)
                             for n, a in enumerate(annotations, start=1)],
                categories=[dict(id=c, name=name) for c, name in enumerate(classes, start=1)])


def thing(image, category, box, score=None, **more):
    """An annotation, or with a score a result."""
    return dict(image_id=image, category_id=category, bbox=box, **({} if score is None else dict(score=score)), **more)


def repeated(truth, results, weights):
    """The data set in which image i comes weights[i] times."""
    images, annotations, found = [], [], []
    for image, times in zip(truth['images'], weights):
        for copy in range(int(times)):
            new = f"{image['id']}/{copy}"
            images.append(dict(image, id=new))
            annotations += [dict(a, image_id=new) for a in truth['annotations'] if a['image_id'] == image['id']]
            found += [dict(r, image_id=new) for r in results if r['image_id'] == image['id']]
    return dict(truth, images=images, annotations=annotations), found
