"""Mask geometry: cropping masks to boxes, pasting them back, run lengths, point sampling, scores."""
