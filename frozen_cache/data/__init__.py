"""COCO-format data sets, their images, and the views (resize, flip, crop) under which a detector sees them."""
