"""Training of the mask head from the cache: configuration, RoIs, targets, losses, schedule, checkpoints."""
