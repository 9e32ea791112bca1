"""Linen modules that call ops; `mask_rcnn` is the one that knows them all."""
