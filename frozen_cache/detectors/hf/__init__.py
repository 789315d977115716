"""Detectors of transformers: the families, the adapter, the input rule of an image processor, loading."""
