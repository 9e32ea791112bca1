"""From result records to numbers: matching, metrics under weights of the images, their intervals, the report."""
