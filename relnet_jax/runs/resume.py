"""Whether a run may resume where it stopped: with these classes, these data and this config."""
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from relnet_jax.runs import checkpoint
from relnet_jax.runs.fingerprint import changes
from relnet_jax.runs.step_folder import CheckpointError


def check(workdir: Path, config: ConfigDict, class_table: dict, data: dict) -> list[dict]:
    """Warns of config keys that changed since the last checkpoint; raises CheckpointError if the classes did, or the
    data (see `fingerprint`) without config.train.allow_changed_data. Returns the window as it was saved."""
    stored = checkpoint.read_class_table(workdir)
    for key in checkpoint.CLASS_TABLE:
        if tuple(stored[key]) != tuple(class_table[key]):
            raise CheckpointError(f"'{workdir}' was trained with other data, {key}: expected {stored[key]}, got "
                                  f'{tuple(class_table[key])}; choose another folder')
    if stored.get(checkpoint.GRAPH) != class_table.get(checkpoint.GRAPH):
        raise CheckpointError(f"'{workdir}' was trained with another class graph (other training images, or "
                              'another config.data.graph or graph_classes); choose another folder')
    about = checkpoint.read_about(workdir)
    if others := changes(about['data'], data) if about.get('data') else []:
        if not config.train.allow_changed_data:
            raise CheckpointError(f"'{workdir}' was trained with other data: {'; '.join(others)}; choose another "
                                  'folder, or allow it with --config.train.allow_changed_data')
        logging.warning('the data changed since the last checkpoint, validation images may have been trained on: %s',
                        '; '.join(others))
    if keys := checkpoint.config_changes(checkpoint.read_config(workdir), config):
        logging.warning('the config changed since the last checkpoint; the new values hold from here on:\n  %s',
                        '\n  '.join(keys))
    return about.get('window', [])
