"""Multi-scale deformable attention, shared by the mask head and by the detectors."""

from frozen_cache.attention.ms_deform_attn import MSDeformAttn, deformable_sampling

__all__ = ["MSDeformAttn", "deformable_sampling"]
