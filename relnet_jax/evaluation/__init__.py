"""From result records to numbers: COCO and VOC-style average precision, the report."""
