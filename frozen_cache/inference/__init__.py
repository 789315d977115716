"""Masks on pictures that nobody has annotated: image -> detector -> mask head -> `Instances`."""
