"""Segment Anything models of transformers: masks of what lies in given boxes, annotated ones or those of a detector."""
