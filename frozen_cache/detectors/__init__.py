"""Frozen detectors behind one interface (`FrozenDetector`), one file per family."""
