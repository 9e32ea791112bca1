"""benchmarks/evaluation.py times what it says."""
from benchmarks.evaluation import make_set, measure
from relnet_jax.evaluation import report


def test_every_part_is_timed_on_sets_that_have_masks_and_hits():
    truth, results = make_set(6, 10, 96)
    metrics = report.evaluate(truth, results)
    assert len(results) == 60 and 0 < metrics['mask_AP50'] < 1 and 0 < metrics['froc_mean'] < 1
    line = measure(2, 5, 96)
    assert line['detections'] == 10 and list(line['seconds']) == ['metrics', 'metrics_with_intervals', 'curves',
                                                                 'files', 'page', 'report']
    assert line['page_bytes'] > 10_000
