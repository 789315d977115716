"""COCO results and metrics from the cache alone."""
