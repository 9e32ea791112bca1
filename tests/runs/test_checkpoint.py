import logging as python_logging

import jax
import numpy as np
import pytest

from relnet_jax.runs import checkpoint, finetune, state, step_folder
from relnet_jax.runs.checkpoint import CheckpointError
from relnet_jax.training import optimizer
from tests.training.standin import Standin, small_config

TABLE = dict(classes=('mass', 'nodule', 'effusion'), category_ids=(3, 7, 9), parts=('heart',))


def make_state(config, num_classes=4):
    model, shapes = Standin(num_classes=num_classes), state.batch_shapes(config, 1, 0)
    tx = optimizer.make_optimizer(config, state.abstract_params(model, shapes))
    return state.init_state(model, tx, config, shapes), state.abstract_state(model, tx, config, shapes)


def at_step(s, step):
    """`s` at another step, with every float changed, so that no two steps look alike."""
    changed = jax.tree.map(lambda x: x + step if x.dtype == np.float32 else x, s)
    return changed._replace(step=np.int32(step))


def write(workdir, config, s, scores, keep=1):
    """A run that saves at every step of `scores`, a dict step -> box_AP50 or None."""
    with checkpoint.make_manager(workdir, keep=keep, best='box_AP50') as manager:
        for step, score in scores.items():
            checkpoint.save(manager, at_step(s, step), config=config, class_table=TABLE,
                            metrics=None if score is None else dict(box_AP50=score, box_APs=float('nan')))


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a, b)


@pytest.fixture
def config():
    c = small_config()
    c.train.ema, c.train.optimizer, c.train.clip_norm, c.train.freeze = 0.9, 'adamw', 1.0, ('rpn',)
    return c


def test_state_comes_back_bit_for_bit(tmp_path, config):
    s, template = make_state(config)
    write(tmp_path, config, s, {5: None})
    restored = checkpoint.restore_latest(tmp_path, template)
    assert_same(restored, at_step(s, 5))
    assert restored.step.dtype == np.int32


def test_checkpoint_reads_without_the_config_file(tmp_path, config):
    config.name, config.train.learning_rate = 'mine', 0.123
    s, _ = make_state(config)
    write(tmp_path, config, s, {5: None})
    assert checkpoint.read_config(tmp_path) == config
    assert checkpoint.read_class_table(tmp_path) == TABLE
    with pytest.raises(AttributeError):
        checkpoint.read_config(tmp_path).train.learning_rat = 1


def test_the_last_and_the_best_are_kept(tmp_path, config):
    s, _ = make_state(config)
    write(tmp_path, config, s, {1: 0.1, 2: 0.9, 3: None, 4: 0.3, 5: None, 6: None}, keep=2)
    assert checkpoint.steps(tmp_path) == [2, 5, 6]


def test_an_old_step_leaves_its_place_whole_and_a_killed_removal_is_taken_up_again(tmp_path, config, monkeypatch):
    s, _ = make_state(config)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, 'rmtree', lambda *args, **kwargs: None)     # as if killed before each
        write(tmp_path, config, s, {1: None, 2: None, 3: None})
    assert checkpoint.steps(tmp_path) == [3]
    removed = tmp_path / 'checkpoints' / 'removed'
    assert sorted(path.name for path in removed.iterdir()) == ['1', '2']
    assert all(not step_folder.damage(path) for path in removed.iterdir())
    write(tmp_path, config, s, {4: None})
    assert checkpoint.steps(tmp_path) == [4] and not removed.exists()


def test_the_best_is_kept_across_a_restart(tmp_path, config):
    s, _ = make_state(config)
    write(tmp_path, config, s, {1: 0.1, 2: 0.9, 3: 0.2})
    write(tmp_path, config, s, {4: 0.4, 5: float('nan')})
    assert checkpoint.steps(tmp_path) == [2, 5]


def test_ckpt_may_be_workdir_folder_step_or_best(tmp_path, config):
    s, _ = make_state(config)
    write(tmp_path, config, s, {1: 0.9, 2: 0.5})
    folder = tmp_path / 'checkpoints'
    for ckpt, step in ((tmp_path, 2), (folder, 2), (str(folder / '1'), 1), (tmp_path / 'best', 1),
                       (folder / 'best', 1)):
        assert checkpoint.find(ckpt) == folder / str(step)
        assert_same(checkpoint.load_params(ckpt), jax.device_get(at_step(s, step).ema))


def test_parameters_are_the_averaged_ones_only_where_there_is_an_average(tmp_path, config):
    config.train.ema = 0.0
    s, _ = make_state(config)
    write(tmp_path, config, s, {1: None})
    assert_same(checkpoint.load_params(tmp_path), jax.device_get(at_step(s, 1).params))


def test_average_turned_on_later_starts_from_the_parameters(tmp_path, config):
    config.train.ema = 0.0
    s, _ = make_state(config)
    write(tmp_path, config, s, {1: None})
    config.train.ema = 0.5
    restored = checkpoint.restore_latest(tmp_path, make_state(config)[1])
    assert_same(restored.ema, restored.params)


def test_nothing_to_restore_is_none(tmp_path, config):
    assert checkpoint.restore_latest(tmp_path / 'new', make_state(config)[1]) is None


def test_unfinished_checkpoints_do_not_count_and_are_written_anew(tmp_path, config):
    s, template = make_state(config)
    write(tmp_path, config, s, {1: None, 2: None}, keep=2)
    folder = tmp_path / 'checkpoints'
    (folder / '2').rename(folder / '2.orbax-checkpoint-tmp')       # as a run killed while it wrote step 2 leaves it
    assert checkpoint.restore_latest(tmp_path, template).step == 1
    write(tmp_path, config, s, {2: None}, keep=2)
    assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == ['1', '2']
    assert_same(checkpoint.restore_latest(tmp_path, template), at_step(s, 2))


def test_missing_and_incomplete_folders_say_what_is_there(tmp_path, config):
    (tmp_path / 'phantom').mkdir()
    with pytest.raises(CheckpointError, match=r"no checkpoint folder '.*phantm', did you mean '.*phantom'"):
        checkpoint.find(tmp_path / 'phantm')
    (tmp_path / 'phantom' / 'metrics.jsonl').touch()
    with pytest.raises(CheckpointError, match=r'no finished checkpoint in .*it holds: metrics.jsonl'):
        checkpoint.read_config(tmp_path / 'phantom')
    (tmp_path / 'checkpoints' / '7' / 'config').mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r'7. is damaged: params is missing; classes is missing'):
        checkpoint.load_params(tmp_path)
    write(tmp_path / 'run', config, make_state(config)[0], {1: None})
    with pytest.raises(CheckpointError, match='none is the best'):
        checkpoint.find(tmp_path / 'run' / 'best')


def test_another_model_is_refused_with_paths_and_shapes(tmp_path, config):
    write(tmp_path, config, make_state(config)[0], {1: None})
    template = make_state(config, num_classes=6)[1]
    with pytest.raises(CheckpointError, match=r'head/bias: expected \(6,\), got \(4,\)'):
        checkpoint.restore_latest(tmp_path, template)
    with pytest.raises(CheckpointError, match=r'head/kernel: expected'):
        checkpoint.load_params(tmp_path, template.params)


def test_another_optimiser_is_refused_with_a_hint(tmp_path, config):
    write(tmp_path, config, make_state(config)[0], {1: None})
    config.train.optimizer = 'sgd'
    with pytest.raises(CheckpointError, match='optimiser state .* does not fit config.train'):
        checkpoint.restore_latest(tmp_path, make_state(config)[1])


def test_config_changes_name_what_matters_to_a_run(config):
    other = small_config()
    other.update(config)
    other.train.log_every, other.test.boxes, other.name = 1, 7, 'x'
    assert checkpoint.config_changes(config, other) == []
    other.train.learning_rate, other.data.flip = 0.5, 0.0
    assert checkpoint.config_changes(config, other) == ['data.flip: 0.5 -> 0.0', 'train.learning_rate: 0.1 -> 0.5']


# ---- fine-tuning ----
def test_fine_tuning_takes_what_fits_and_lists_the_rest(tmp_path, config, caplog):
    s, _ = make_state(config)
    write(tmp_path, config, s, {1: None})
    params = jax.device_get(make_state(config, num_classes=6)[0].params)
    params['relation'] = {'query': {'kernel': np.zeros((2, 2), np.float32)}}
    with caplog.at_level(python_logging.INFO, logger='absl'):
        got = finetune.start_from_run(params, str(tmp_path), class_table=TABLE, strict=False)
    stored = checkpoint.load_params(tmp_path)
    assert_same(got['backbone'], stored['backbone'])
    assert_same(got['head'], params['head'])
    assert_same(got['relation'], params['relation'])
    text = caplog.text
    assert 'loaded: 9\n    backbone/* (7)\n    rpn/* (2)' in text
    assert 'new (kept at init): 3\n    head/* (2)\n    relation/* (1)' in text
    assert 'left out: 2\n    head/* (2)' in text
    assert 'shape of head/bias: (6,) here, (4,) in the checkpoint' in text


def test_strict_fine_tuning_accepts_nothing_new_and_nothing_left_out(tmp_path, config):
    s, _ = make_state(config)
    write(tmp_path, config, s, {1: None})
    params = jax.device_get(s.params)
    assert_same(
        finetune.start_from_run(params, str(tmp_path), class_table=TABLE, strict=True),
        checkpoint.load_params(tmp_path),
    )
    for wrong in (params | {'extra': np.zeros(1)}, {k: v for k, v in params.items() if k != 'rpn'}):
        with pytest.raises(CheckpointError, match='init_strict'):
            finetune.start_from_run(wrong, str(tmp_path), class_table=TABLE, strict=True)


def test_fine_tuning_from_something_else_altogether_is_an_error(tmp_path, config):
    write(tmp_path, config, make_state(config)[0], {1: None})
    with pytest.raises(CheckpointError, match='no parameter of'):
        finetune.start_from_run({'other': np.zeros(3)}, str(tmp_path), class_table=TABLE, strict=False)


def test_fine_tuning_to_other_classes_takes_their_rows_by_name(tmp_path, config, caplog):
    """Classes in another order, one renamed in case alone, one new, one gone; deltas have four numbers a class."""
    def predictor(count, start):
        return {
            'box_predictor': {
                'cls_score': {
                    'kernel': start + np.arange(2.0 * count).reshape(2, count),
                    'bias': start + np.arange(1.0 * count),
                },
                'bbox_pred': {'bias': start + np.arange(4.0 * count)},
            },
            'mask_predictor': {'mask_fcn_logits': {'bias': start + np.arange(1.0 * count)}},
            'relation_head': {
                'predictor': {'cls_score': {'bias': start + np.arange(1.0 * count)}},
                'class': {'reduce': {'bias': start + np.arange(1.0 * count)}},
            },
        }

    stored, ours = predictor(4, 0), predictor(4, 100)
    checkpoint.save_model(tmp_path, stored, config=config, class_table=TABLE)       # mass, nodule, effusion
    classes = ('Effusion', 'fracture', 'mass')
    with caplog.at_level(python_logging.INFO, logger='absl'):
        got = finetune.start_from_run(ours, str(tmp_path), class_table=TABLE | dict(classes=classes), strict=False)
    scores = got['box_predictor']['cls_score']
    np.testing.assert_array_equal(scores['bias'], [0, 3, 102, 1])
    np.testing.assert_array_equal(scores['kernel'], [[0, 3, 102, 1], [4, 7, 106, 5]])
    np.testing.assert_array_equal(got['box_predictor']['bbox_pred']['bias'],
                                  [0, 1, 2, 3, 12, 13, 14, 15, 108, 109, 110, 111, 4, 5, 6, 7])
    np.testing.assert_array_equal(got['mask_predictor']['mask_fcn_logits']['bias'], [0, 3, 102, 1])
    np.testing.assert_array_equal(got['relation_head']['predictor']['cls_score']['bias'], [0, 3, 102, 1])
    np.testing.assert_array_equal(got['relation_head']['class']['reduce']['bias'], [0, 1, 2, 3])    # of no class
    assert 'classes taken by name: background, Effusion, mass' in caplog.text
    assert 'classes new: fracture' in caplog.text and 'classes left out: nodule' in caplog.text
    with pytest.raises(CheckpointError, match='init_strict'):
        finetune.start_from_run(ours, str(tmp_path), class_table=TABLE | dict(classes=classes), strict=True)
    more = finetune.start_from_run(predictor(6, 100), str(tmp_path), strict=False,
                                   class_table=TABLE | dict(classes=('a', 'mass', 'b', 'nodule', 'c')))
    np.testing.assert_array_equal(more['box_predictor']['cls_score']['bias'], [0, 101, 1, 103, 2, 105])


@pytest.mark.parametrize('tables', [1, 2])      # without and with the graph
def test_what_presence_tells_of_a_class_goes_with_its_name(tmp_path, config, tables):
    def head(classes, start):
        rows = start + np.arange(2.0 * tables * classes).reshape(tables * classes, 2)
        return {'relation_head': {'presence': {'fc': {'kernel': rows}}}}

    checkpoint.save_model(tmp_path, head(3, 0), config=config, class_table=TABLE)       # mass, nodule, effusion
    for classes, expected in (
            (('Effusion', 'fracture', 'mass'), [[4, 5], [102, 103], [0, 1], [10, 11], [108, 109], [6, 7]]),
            (('nodule', 'a', 'b', 'c'), [[2, 3], [102, 103], [104, 105], [106, 107],
                                         [8, 9], [110, 111], [112, 113], [114, 115]])):
        got = finetune.start_from_run(head(len(classes), 100), str(tmp_path), strict=False,
                                      class_table=TABLE | dict(classes=classes))
        np.testing.assert_array_equal(got['relation_head']['presence']['fc']['kernel'],
                                      expected[:tables * len(classes)])


def test_fine_tuning_to_other_parts_takes_their_rows_by_name(tmp_path, config, caplog):
    def head(start):
        return {'anatomy_head': {'presence': {'bias': start + np.arange(2.)},
                                 'rows_sides': {'kernel': start + np.arange(128.).reshape(2, 64)}},
                'relation_head': {'part': {'norm': {'bias': start + np.arange(128.)}}}}

    table = TABLE | dict(parts=('Left Lung', 'Right Lung'))
    checkpoint.save_model(tmp_path, head(0), config=config, class_table=table)
    swapped = table | dict(parts=('Right Lung', 'Left Lung'))
    with caplog.at_level(python_logging.INFO, logger='absl'):
        got = finetune.start_from_run(head(900), str(tmp_path), class_table=swapped, strict=True)['anatomy_head']
    np.testing.assert_array_equal(got['presence']['bias'], [1, 0])
    np.testing.assert_array_equal(got['rows_sides']['kernel'],
                                  [[*range(32, 64), *range(32)], [*range(96, 128), *range(64, 96)]])
    report, = (record.getMessage() for record in caplog.records if record.filename == 'finetune.py')
    assert 'parts taken by name: Right Lung, Left Lung' in report and 'classes' not in report
    assert 'relation_head/part, and the predictor that reads it, keep the order of parts' in report


def test_the_same_classes_in_the_same_order_are_taken_bit_for_bit(tmp_path, config, caplog):
    rng = np.random.default_rng(1)
    stored = {'box_predictor': {'cls_score': {'kernel': rng.normal(size=(3, 4)).astype(np.float32)},
                                'bbox_pred': {'bias': rng.normal(size=16).astype(np.float32)}}}
    checkpoint.save_model(tmp_path, stored, config=config, class_table=TABLE)
    ours = jax.tree.map(np.zeros_like, stored)
    with caplog.at_level(python_logging.INFO, logger='absl'):
        assert_same(finetune.start_from_run(ours, str(tmp_path), class_table=TABLE, strict=True), stored)
    assert 'by name' not in caplog.text


def test_a_model_without_optimiser_is_evaluated_and_tuned_but_not_resumed(tmp_path, config):
    params = jax.device_get(make_state(config)[0].params)
    checkpoint.save_model(tmp_path, params, config=config, class_table=TABLE)
    assert_same(checkpoint.load_params(tmp_path), params)
    assert_same(finetune.start_from_run(params, str(tmp_path), class_table=TABLE, strict=True), params)
    with pytest.raises(CheckpointError, match='no step in .* was evaluated, so none is the best'):
        checkpoint.find(tmp_path / 'best')
    with pytest.raises(CheckpointError, match="without an optimiser's state: give it as config.train.init_from"):
        checkpoint.restore_latest(tmp_path, make_state(config)[0])
