"""From padded detections to numbers: result records, COCO and VOC-style average precision, the report."""
