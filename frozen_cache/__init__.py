"""The library: frozen detectors, the zarr cache of their outputs, and the mask head that trains from it.

Shape letters, used everywhere:
    B  images in a batch          K  (query, label) pairs selected per image
    N  instances (rows, RoIs)     Q  all queries of the detector
    D  query width                C  channels or classes
    L  encoder levels             H, W  size of a map or image
    R  side of a RoI              G  ground-truth objects
"""
